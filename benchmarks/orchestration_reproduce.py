"""Reproduction: the share of generator kinds whose report has the same digests when it is rebuilt elsewhere.

Every generator is fitted, sampled and evaluated (neural ones with few steps, those of several assets on a basket of
bars), and every order flow calibrated, simulated and compared, in one home. Each report then goes into a bundle, which
a process of its own rebuilds in an empty home: another working directory, time zone, hash seed and number of threads.
`claims` is what `orchestration.py` may join to its own; run alone, this file prints them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Claim, arguments, report

sys.path.insert(0, str(Path(__file__).parents[1]))

from synth_pipeline import generators, plugins, stages
from synth_pipeline.market import flows
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from tests.made_results import market, of_flow, of_generator

QUICK = ("block_bootstrap", "dcc_garch", "wgan_gp", "zero_intelligence")


def elsewhere(bundle: Path, folder: Path, number: int) -> dict[str, object]:
    """Rebuild a bundle as another machine would; return what the command says in JSON."""
    place = folder / f"elsewhere-{number}"
    place.mkdir()
    set_apart = {"SYNTH_HOME": "home", "SYNTH_TRACKING": "false", "SYNTH_SEED": "99", "SYNTH_STEP_MS": "250"}
    set_apart |= {"TZ": "Asia/Kolkata", "PYTHONHASHSEED": str(number + 1)}
    set_apart |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "3")
    set_apart |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "synth_pipeline", "reproduce", str(bundle), "--json"]
    done = subprocess.run(command, cwd=place, env=os.environ | set_apart, capture_output=True, text=True, check=False)
    if not done.stdout:
        return {"identical": False, "first_difference": {"ref": bundle.stem, "why": done.stderr.strip()}}
    found: dict[str, object] = json.loads(done.stdout)
    return found


def differences(quick: bool) -> dict[str, str]:
    """Return why each kind is not rebuilt with its digests, empty where it is."""
    kinds = [(of_generator, name) for name in plugins.names(generators)]
    kinds += [(of_flow, name) for name in plugins.names(flows)]
    told: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="reproduce-") as text:
        folder = Path(text)
        workspace = Workspace(Settings(home=folder / "home", tracking=False))
        market(workspace)
        for number, (make, name) in enumerate(kinds):
            if quick and name not in QUICK:
                continue
            made = make(workspace, name)
            path = folder / f"{name}.zip"
            stages.bundle(workspace, made.ref, path, raw=True)
            found = elsewhere(path, folder, number)
            first = found["first_difference"]
            told[name] = "" if found["identical"] else f"{first['ref']}: {first['why']}"  # type: ignore[index]
            print(f"{name}: {told[name] or 'identical'}", file=sys.stderr)
    return told


def claims(quick: bool) -> list[Claim]:
    told = differences(quick)
    differ = [f"{name} ({why})" for name, why in told.items() if why]
    note = f"{len(told)} kinds: {', '.join(told)}" + f"; differ: {'; '.join(differ)}" * bool(differ)
    what = "share of generator kinds whose report is rebuilt with identical digests in a clean home"
    return [Claim("reproduce_identical", what, 1 - len(differ) / len(told), 1.0, "equal", note=note)]


if __name__ == "__main__":
    options = arguments(__doc__).parse_args()
    report("orchestration_reproduce", claims(options.quick), as_json=options.json)

"""Results of every family have their digests again; `benchmarks/orchestration_reproduce.py` has every kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from synth_pipeline import stages
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.lineage import drawing, graph, manifests, references
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.stages.workspace import Built, draft_of, materialize
from tests.made_results import DAY, SOURCE, market, of_generator

NIGHT = "5b0a3e1c-7a44-4c1e-9a52-64b3c1d0e9f7"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.of(Settings(home=tmp_path_factory.mktemp("kinds") / "home", tracking=False))
    market(workspace)
    return workspace


@pytest.mark.parametrize("name", ["block_bootstrap", "correlated_brownian_motion", "wgan_gp"])
def test_a_report_is_rebuilt_with_its_digests_elsewhere(
    made: Workspace, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = of_generator(made, name)
    stages.bundle(made, report.ref, tmp_path / "paper.zip", raw=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    # Nothing of it is in this home, whose settings are others.
    elsewhere = Workspace.of(Settings(home=tmp_path / "elsewhere", tracking=False, seed=9, step_ms=250))
    with threadpool_limits(2):
        found = stages.reproduce(elsewhere, "paper.zip")
    assert found.first_difference is None
    assert found.ref == report.ref
    assert len(found.stages) >= 5


def test_digits_do_not_depend_on_how_many_threads_add_up(tmp_path: Path) -> None:
    workspace = Workspace.of(Settings(home=tmp_path / "home", tracking=False))
    seen: list[int] = []

    def build(place: Path) -> Built:
        seen.extend(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
        (place / "made.txt").write_text(str(np.ones(3) @ np.ones(3)))
        return Built({"made": place / "made.txt"}, {})

    with threadpool_limits(2, user_api="blas"):
        materialize(workspace, draft_of(workspace, "reports", f"{SOURCE}/{DAY}/threads", {}, (), {}), build)
    assert seen
    assert set(seen) == {1}


def test_a_leaderboard_names_what_waited_then(made: Workspace) -> None:
    of_generator(made, "block_bootstrap")
    stages.fit(made, SOURCE, DAY, "geometric_brownian_motion")
    board = stages.leaderboard(made, SOURCE, DAY)
    assert list(board.config["waiting"]) == ["geometric_brownian_motion"]
    assert stages.reproduce(made, board.ref).is_identical


def _rewrite(workspace: Workspace, ref: str, **changes: object) -> None:
    folder = workspace.settings.home / ref
    manifest = manifests.load(folder)
    assert manifest is not None
    (folder / manifests.NAME).write_bytes(manifests.encode(replace(manifest, **changes)))  # type: ignore[arg-type]


def test_a_run_of_several_results_is_all_of_them(made: Workspace, tmp_path: Path) -> None:
    for name in ("block_bootstrap", "geometric_brownian_motion"):
        stages.fit(made, SOURCE, DAY, name)
        stages.sample(made, SOURCE, DAY, name, paths=2, steps=200)
    results = [f"synthetic/simulated/BTCUSDT/{DAY}/{name}" for name in ("block_bootstrap", "geometric_brownian_motion")]
    for ref in (*results, *(each.replace("synthetic", "checkpoints") for each in results)):
        _rewrite(made, ref, dagster_run_id=NIGHT)
    assert references.resolve_all(made.settings.home, NIGHT) == results
    with pytest.raises(NoDataError, match="means several partitions"):
        references.resolve(made.settings.home, NIGHT)
    node = graph.chain(made.settings.home, NIGHT)
    told = graph.to_json(node)
    assert (told["ref"], told["sound"], told["nodes"][0]["results"]) == (NIGHT, True, results)
    assert graph.render(node).splitlines()[1].startswith(f"├── {results[0]}")
    assert drawing.to_dot(node).count("[label=") == 1 + 2 + 2 + 3
    page = drawing.to_html(node)
    assert page.count("<details>") == page.count("</details>") == 8  # one partition is drawn again, folded
    assert all(ref in page for ref in results)
    stages.bundle(made, NIGHT, tmp_path / "night.zip", raw=True)
    found = stages.reproduce(made, str(tmp_path / "night.zip"))
    assert found.is_identical
    assert len(found.stages) == 3 + 2 + 2


def test_a_decision_is_not_taken_again(made: Workspace) -> None:
    report = of_generator(made, "block_bootstrap")
    decision = stages.promote(made, SOURCE, DAY, "block_bootstrap")
    with pytest.raises(InputError, match=f"decision on what a registry held that night: reproduce {report.ref}"):
        stages.reproduce(made, decision.ref)
    # A night that ends with a decision means the report that it was on.
    night = NIGHT.replace("5b", "6c")
    for ref in (report.ref, decision.ref):
        _rewrite(made, ref, dagster_run_id=night)
    assert references.resolve_all(made.settings.home, night) == [report.ref]

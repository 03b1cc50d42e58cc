"""The fidelity laboratory: whether its numbers are right, what they cost, what they notice and what they let pass.

Each `fidelity_*` script beside this one measures some of the figures; this one collects them.

    python benchmarks/fidelity.py --quick
"""

from __future__ import annotations

import importlib
import importlib.util

from common import Claim, Goal, arguments, report

CLAIMS: dict[str, tuple[str, float, Goal]] = {
    "oracle_mismatches": (
        "numbers that other libraries, or a slow twin of the book's scores, do not confirm",
        0,
        "equal",
    ),
    "cheap_seconds": ("evaluation of 10,000 windows of 24 steps and 6 features, nothing trained", 5, "low"),
    "million_seconds": ("evaluation of a series of a million rows, nothing trained", 10, "low"),
    "copy_ps": ("distance of the predictive score of a copy of Stocks from 0.0367", 0.001, "low"),
    "copy_ds": ("discriminative score of a copy of Stocks", 0.026, "low"),
    "copy_corr": ("correlational score of a copy of Stocks", 0.008, "low"),
    "copy_ds_etth": ("discriminative score of a copy of ETTh", 0.010, "low"),
    "ds_seconds": ("five repeats of the discriminative score on Stocks, seconds", 90, "low"),
    "defects_named": ("planted defects named by the metric meant for them, none graded A", 1, "equal"),
    "copies_exposed": ("copies whose grade is withheld for memorization", 1, "equal"),
    "false_alarm_share": ("real data against real data of the same period: checks not indistinguishable", 0.05, "low"),
    "report_seconds": ("the full report with learned metrics, seconds", 180, "low"),
}
SCRIPTS = ("fidelity_oracles", "fidelity_speed", "fidelity_learned", "fidelity_defects", "fidelity_report")
"""Their `measured(quick=…)` returns claims."""


def claims(*, quick: bool) -> list[Claim]:
    """Return every claim, unmeasured where no script measures it."""
    found: dict[str, Claim] = {}
    for script in SCRIPTS:
        if importlib.util.find_spec(script):
            found |= {claim.id: claim for claim in importlib.import_module(script).measured(quick=quick)}
    note = f"no script of {', '.join(SCRIPTS)} measures it"
    return [
        found.get(name, Claim(name, what, None, bar, goal, note=note)) for name, (what, bar, goal) in CLAIMS.items()
    ]


def main() -> None:
    given = arguments(__doc__).parse_args()
    report("fidelity", claims(quick=given.quick), as_json=given.json)


if __name__ == "__main__":
    main()

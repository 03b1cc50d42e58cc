"""What each section of the page rests on, and why it fails there, in plain words."""

from __future__ import annotations

from typing import NamedTuple

from synth_pipeline.fidelity.evaluation import Evaluation, Result
from synth_pipeline.reports import words
from synth_pipeline.reports.words import Finding

FAMILIES = {
    "marginal": "Marginal: how returns are distributed",
    "temporal": "Temporal: how they follow each other",
    "cross": "Cross-feature: how columns move together",
    "coverage": "Coverage: whether all that the market does is there",
    "signature": "Signatures: the shape of paths",
    "learned": "Learned: what trained judges tell apart",
    "utility": "Utility: what models and rules learn from it",
    "dependence": "Dependence between assets",
}
"""Titles of the families that are no copies, in the order of the page; what is not named here comes after them."""
COPYING = ("copying", "privacy")


class _Rests(NamedTuple):
    families: set[str]
    metrics: set[str]
    about: str


SECTIONS = {
    "prices": _Rests(set(), {"max_drawdown", "drawdown_distance", "drift", "mean_return"}, "direction and drawdowns"),
    "returns": _Rests({"marginal"}, {"skewness", "kurtosis"}, "sizes of returns"),
    "memory": _Rests(
        set(),
        {
            *("return_acf_error", "absolute_return_acf_error", "squared_return_acf_error", "ljung_box_per_observation"),
            *("arch_lm_per_observation", "acf_lag_1", "acf_sum_10", "hurst_exponent", "ljung_box_p", "arch_lm_p"),
            *("rsi_correlation", "leverage_effect", "zumbach_effect", "ranked_leverage", "change_memory_error"),
            "activity_memory_error",
        },
        "the order of returns",
    ),
    "volatility": _Rests(
        set(),
        {
            *(
                "volatility",
                "standard_deviation",
                "volatility_clustering",
                "volatility_persistence",
                "volatility_hurst",
            ),
            *("volatility_asymmetry", "aggregation_error", "conditional_kurtosis", "intermittency"),
        },
        "volatility",
    ),
    "features": _Rests({"cross"}, {"level_distance", "change_distance"}, "features together"),
    "windows": _Rests({"coverage", "signature", "learned", "utility"}, set(), "whole windows"),
    "copying": _Rests({*COPYING}, set(), "copies and near neighbours"),
    "dependence": _Rests({"dependence"}, set(), "assets together"),
}


class Why(NamedTuple):
    """How many numbers of a section are wrong, and which."""

    sentence: str
    findings: list[Finding]


def why(evaluation: Evaluation, section: str) -> Why:
    """Return what is off and what is close among the metrics that a section is about."""
    rests = SECTIONS[section]
    about = [each for each in evaluation.results if each.family in rests.families or each.name in rests.metrics]
    judged = [each for each in about if each.verdict != "absent"]
    if not judged:
        return Why(f"It cannot be told: nothing of {rests.about} was measured.", [])
    found = words.findings_of(judged)
    off = sum(each.verdict == "off" for each in found)
    if not found:
        count = "The one number" if len(judged) == 1 else f"None of the {len(judged)} numbers"
        verb = "can be told from real data" if len(judged) > 1 else "cannot be told from real data"
        return Why(f"{count} on {rests.about} {verb}.", [])
    return Why(
        f"Of {len(judged)} numbers on {rests.about}, {off} {'is' if off == 1 else 'are'} off and "
        f"{len(found) - off} {'is' if len(found) - off == 1 else 'are'} close.",
        found,
    )


def by_family(results: tuple[Result, ...]) -> list[tuple[str, list[Result]]]:
    """Return the results that are neither weighted nor of copying, family by family, with its title."""
    names = [*FAMILIES, *dict.fromkeys(each.family for each in results if each.family not in FAMILIES)]
    grouped = {
        name: [each for each in results if each.family == name and not each.weight and name not in COPYING]
        for name in names
    }
    return [(FAMILIES.get(name, name.capitalize()), found) for name, found in grouped.items() if found]

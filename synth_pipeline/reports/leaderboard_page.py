"""`Entry` and `render`: everything that was sampled of one market, the best first, with floors and copying."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from synth_pipeline.fidelity.evaluation import Evaluation, Grade, Result
from synth_pipeline.reports.page import page

GRADES: tuple[Grade | None, ...] = ("A", "B", "C", "D", "E", "F", "withheld", None)
"""From the best on; None stands for what was not evaluated."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One dataset, or one checkpoint without any."""

    name: str
    grade: Grade | None = None
    because: str = ""
    """Why the grade is no better; of an entry without a grade, what is to be done first."""
    fidelity: float | None = None
    fresh: float | None = None
    split_half: float | None = None
    bootstrap: float | None = None
    copy: float | None = None
    inside: int = 0
    """Numbers that cannot be told from those of real data."""
    judged: int = 0
    valid: float | None = None
    verbatim: float | None = None
    """Share of steps inside verbatim pieces of the training data."""
    verbatim_fresh: float | None = None
    nearness: float | None = None
    """How much nearer to training windows than to held-out ones; below 1 is nearer."""
    nearness_fresh: float | None = None
    digest: str = ""
    """Of the report."""

    @classmethod
    def of(cls, name: str, record: Evaluation, digest: str) -> Entry:
        """Make the entry of a record."""
        floors = record.fidelity_floors
        of_all = [each for record_ in (record, *record.assets.values()) for each in record_.results]
        copies = {each.name: each for each in of_all if each.reference == "train" and each.value is not None}
        verbatim, verbatim_fresh = _with_floor(copies.get("verbatim_share"))
        nearness, nearness_fresh = _with_floor(copies.get("training_nearness"))
        return cls(
            name=name,
            grade=record.grade,
            because=record.grade_because,
            fidelity=record.fidelity,
            fresh=floors.fresh.value,
            split_half=floors.split_half.value,
            bootstrap=floors.bootstrap.value,
            copy=floors.copy.value,
            inside=sum(each.verdict == "indistinguishable" for each in record.judged),
            judged=len(record.judged),
            valid=min((check.share for check in record.checks), default=1.0),
            verbatim=verbatim,
            verbatim_fresh=verbatim_fresh,
            nearness=nearness,
            nearness_fresh=nearness_fresh,
            digest=digest,
        )


def _with_floor(found: Result | None) -> tuple[float | None, float | None]:
    return (found.value, found.floor) if found else (None, None)


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries by grade, then by fidelity, then by name."""
    return sorted(entries, key=lambda each: (GRADES.index(each.grade), -(each.fidelity or 0.0), each.name))


def render(title: str, entries: Sequence[Entry], provenance: Mapping[str, str]) -> str:
    """Return the page; the same entries give the same bytes."""
    return page("leaderboard.html", title=title, entries=entries, provenance=provenance)

"""`render`: a fidelity record as one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from synth_pipeline.fidelity.checklists import Checklist
from synth_pipeline.fidelity.evaluation import Evaluation, Exhibits, Result, StressPanel
from synth_pipeline.reports import figures, numbers, sections, words

_FOLDER = Path(__file__).parent


def render(evaluation: Evaluation, provenance: Mapping[str, str] | None = None) -> str:
    """Return the report page; the same record and provenance give the same bytes.

    `provenance` says where the data come from, in the order given: instrument, day, generator, seed, digests, the
    commands that make it again; by default it is the record's own. `instrument`, `day` or `bars`, and `generator` also
    go into the title, `command` and `reproduce` are set as code; `scenario` and `selected_on` are told before the
    verdict.
    """
    told = evaluation.provenance if provenance is None else provenance
    whole = _market("", evaluation)
    markets = [_market(name, each) for name, each in evaluation.assets.items()] or [whole]
    return page(
        "report.html",
        title=_title(told),
        evaluation=evaluation,
        markets=markets,
        by_prefix={each.prefix: each for each in (*markets, whole)},
        dependence=sections.why(evaluation, "dependence"),
        provenance=told,
        headline=words.headline(evaluation),
        provisos=words.provisos(told),
        summary=words.summary(evaluation),
        cards=words.cards(evaluation),
        findings=words.findings(evaluation),
        permissions=words.PERMISSIONS,
        plotly=plotly_library(),
    )


def page(template: str, *, title: str, plotly: str = "", **shown: object) -> str:
    """Return a page of the house made from a template that extends `shell.html`; `plotly` where it has figures."""
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            symbols=words.SYMBOLS,
            plotly=plotly,
            style=_read("report.css"),
            script=_read("report.js"),
            **shown,
        )
    )


@dataclass(frozen=True)
class _Market:
    """What the page shows of one market: the only one, or one of several assets."""

    name: str
    evaluation: Evaluation
    twelve: list[Result]
    others: list[tuple[str, list[Result]]]
    copying: list[Result]
    why: dict[str, sections.Why]
    neighbours: list[tuple[str, str]]
    """Names and captions of the figures."""
    checklists: list[dict[str, object]]
    figures: dict[str, str]

    @property
    def prefix(self) -> str:
        """What the names of its sections begin with."""
        return f"{self.name}-" if self.name else ""

    @property
    def stress(self) -> tuple[StressPanel, ...]:
        """Severity by regime."""
        return self.evaluation.exhibits.stress if self.evaluation.exhibits else ()


def _market(name: str, evaluation: Evaluation) -> _Market:
    results, shown = evaluation.results, evaluation.exhibits or Exhibits()
    pairs = shown.neighbours.pairs if shown.neighbours else []
    return _Market(
        name=name,
        evaluation=evaluation,
        twelve=[result for result in results if result.weight],
        others=sections.by_family(results),
        copying=[result for result in results if result.family in sections.COPYING],
        why={
            **{section: sections.why(evaluation, section) for section in sections.SECTIONS},
            "validity": sections.why_invalid(evaluation),
            "stress": sections.why_stress(evaluation),
            "checklists": sections.why_checklists(evaluation),
        },
        neighbours=[
            (f"neighbours_{at}", f"Pair {at}: distance {numbers.number(pair.distance)}.")
            for at, pair in enumerate(pairs, start=1)
        ],
        checklists=[_checklist(each) for each in shown.checklists],
        figures={each: specification(figure) for each, figure in figures.figures(evaluation).items()},
    )


def _checklist(found: Checklist) -> dict[str, object]:
    shares = (numbers.DASH if each is None else numbers.percent(each) for each in (found.share, found.floor_share))
    share, floor_share = shares
    return {
        "title": found.name.replace("_", " ").capitalize(),
        "checks": found.checks,
        "share": share,
        "floor_share": floor_share,
    }


def _title(provenance: Mapping[str, str]) -> str:
    named = [provenance[key] for key in ("generator", "instrument", "day", "bars") if provenance.get(key)]
    return " · ".join(named) or "synthetic series"


def specification(figure: go.Figure) -> str:
    """Return a figure as JSON that is safe inside a script element, keys sorted."""
    text = json.dumps(figure.to_plotly_json(), sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=numbers.number,
        quantity=numbers.quantity,
        interval=numbers.interval,
        percent=numbers.percent,
        measured=numbers.measured,
        severity=numbers.severity,
    )
    return made


@cache
def plotly_library() -> str:
    """Return the library that draws, to be inlined once a page."""
    from plotly.offline import get_plotlyjs

    library: str = get_plotlyjs()
    return library


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")

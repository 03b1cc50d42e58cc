"""`render`: a fidelity record as one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from synth_pipeline.fidelity.evaluation import Evaluation, Panels, Result
from synth_pipeline.reports import figures, numbers, words

_FOLDER = Path(__file__).parent


def render(evaluation: Evaluation, provenance: Mapping[str, str]) -> str:
    """Return the report page; the same record and provenance give the same bytes.

    `provenance` says where the data come from, in the order given: instrument, day, generator, seed, digests, the
    command that makes it again. `instrument`, `day` or `bars`, and `generator` also go into the title, `command` is set
    as code; `scenario` and `selected_on` are told before the verdict.
    """
    markets = [_market(name, each) for name, each in (evaluation.assets or {"": evaluation}).items()]
    return _template().render(
        evaluation=evaluation,
        markets=markets,
        title=_title(provenance),
        provenance=provenance,
        headline=words.headline(evaluation),
        provisos=words.provisos(provenance),
        summary=words.summary(evaluation),
        cards=words.cards(evaluation),
        findings=words.findings(evaluation),
        symbols=words.SYMBOLS,
        plotly=_plotly(),
        style=_read("report.css"),
        script=_read("report.js"),
    )


@dataclass(frozen=True)
class _Market:
    """What the page shows of one market: the only one, or one of several assets."""

    name: str
    evaluation: Evaluation
    twelve: list[Result]
    others: list[Result]
    copying: list[Result]
    figures: dict[str, str]

    @property
    def prefix(self) -> str:
        """What the names of its sections begin with."""
        return f"{self.name}-" if self.name else ""


def _market(name: str, evaluation: Evaluation) -> _Market:
    results = evaluation.results
    return _Market(
        name=name,
        evaluation=evaluation,
        twelve=[result for result in results if result.weight],
        others=[result for result in results if not result.weight and result.family != "copying"],
        copying=[result for result in results if result.family == "copying"],
        figures=_specifications(evaluation.panels) if evaluation.panels else {},
    )


def _title(provenance: Mapping[str, str]) -> str:
    named = [provenance[key] for key in ("generator", "instrument", "day", "bars") if provenance.get(key)]
    return " · ".join(named) or "synthetic series"


def _specifications(panels: Panels) -> dict[str, str]:
    """Return each figure as JSON that is safe inside a script element, keys sorted."""
    drawn = {name: figure.to_plotly_json() for name, figure in figures.figures(panels).items()}
    return {
        name: json.dumps(drawn[name], sort_keys=True, separators=(",", ":")).replace("<", "\\u003c") for name in drawn
    }


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=numbers.number, quantity=numbers.quantity, interval=numbers.interval, percent=numbers.percent
    )
    return environment.get_template("report.html")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    library: str = get_plotlyjs()
    return library


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")

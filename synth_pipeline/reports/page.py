"""`render`: a fidelity record as one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from synth_pipeline.fidelity.evaluation import Evaluation, Panels
from synth_pipeline.reports import figures, numbers, words

_FOLDER = Path(__file__).parent


def render(evaluation: Evaluation, provenance: Mapping[str, str]) -> str:
    """Return the report page; the same record and provenance give the same bytes.

    `provenance` says where the data come from, in the order given: instrument, day, generator, seed, digests, the
    command that makes it again. `instrument`, `day` and `generator` also go into the title, `command` is set as code.
    """
    twelve = [result for result in evaluation.results if result.weight]
    copying = [result for result in evaluation.results if result.family == "copying"]
    others = [result for result in evaluation.results if not result.weight and result.family != "copying"]
    return _template().render(
        evaluation=evaluation,
        title=_title(provenance),
        provenance=provenance,
        headline=words.headline(evaluation),
        summary=words.summary(evaluation),
        cards=words.cards(evaluation),
        findings=words.findings(evaluation),
        symbols=words.SYMBOLS,
        twelve=twelve,
        copying=copying,
        others=others,
        figures=_specifications(evaluation.panels),
        plotly=_plotly(),
        style=_read("report.css"),
        script=_read("report.js"),
    )


def _title(provenance: Mapping[str, str]) -> str:
    named = [provenance[key] for key in ("generator", "instrument", "day") if provenance.get(key)]
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

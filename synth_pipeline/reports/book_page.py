"""`render`: a simulated order book beside a real one, as one HTML file that needs nothing else.

Depth heat maps and impact curves are drawn, scores and floors are in a table; nothing is computed here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, StrictUndefined

from synth_pipeline.fidelity.book_comparison import BookComparison
from synth_pipeline.fidelity.impact import IMPACT
from synth_pipeline.fidelity.order_book import STATISTICS
from synth_pipeline.reports import figures, numbers
from synth_pipeline.reports.page import _read, plotly_library
from synth_pipeline.series import FloatArray


@dataclass(frozen=True)
class DepthPanel:
    """The book over time."""

    seconds: FloatArray
    """Since the start, shape (moments,)."""
    ticks: FloatArray
    """Prices against the first mid, the middles of equal bins, shape (bins,)."""
    lots: FloatArray
    """Displayed in each bin at each moment, shape (bins, moments)."""
    mid: FloatArray
    """Ticks against the first mid, shape (moments,)."""


@dataclass(frozen=True)
class BookPanels:
    """What is drawn of a real and of a simulated sample."""

    depth: tuple[DepthPanel, DepthPanel]
    lags: FloatArray
    impact: Mapping[str, tuple[FloatArray, FloatArray]]
    """Responses at the lags by name, ticks."""


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<link rel="icon" href="data:,">
<title>Order book: {{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the scores</a>
<header>
  <p class="kicker">Order-book report</p>
  <h1>{{ title }}</h1>
  <nav aria-label="Sections"><a href="#depth">Depth</a><a href="#impact">Impact</a><a href="#scores">Scores</a>\
<a href="#provenance">Provenance</a></nav>
</header>
<main id="main">
<section class="cards" aria-label="Summary numbers">
{% for card in cards %}
  <article class="card"><h3>{{ card.title }}</h3><p class="value">{{ card.value }}</p>\
<p class="floor">real to real: {{ card.floor }}</p><p class="note">{{ card.note }}</p></article>
{% endfor %}
</section>
<section id="depth">
  <h2>Depth</h2>
  <div class="pair">
  {% for name, caption in depths %}
  <figure><div class="plot" id="figure-{{ name }}" role="img" aria-label="{{ caption }}"></div>\
<figcaption>{{ caption }}</figcaption>\
<script type="application/json" data-figure="figure-{{ name }}">{{ drawn[name] | safe }}</script></figure>
  {% endfor %}
  </div>
  <p class="explain">Both maps have the same scales: price in ticks against the first mid, colour by the lots on \
display. Walls that stand where they are should stand in both; a simulated map that is smooth where the real one is \
patchy has lost the memory of its queues.</p>
</section>
<section id="impact">
  <h2>Impact</h2>
  {% if impacts %}
  <div class="pair">
  {% for name, caption in impacts %}
  <figure><div class="plot" id="figure-{{ name }}" role="img" aria-label="{{ caption }}"></div>\
<figcaption>{{ caption }}</figcaption>\
<script type="application/json" data-figure="figure-{{ name }}">{{ drawn[name] | safe }}</script></figure>
  {% endfor %}
  </div>
  <p class="explain">How far the mid has moved, on average, so many messages after one of a kind at the best price, \
in ticks and in the direction that it presses: up after a buy, a bid that is placed or an ask that leaves. A curve \
that goes on rising tells of orders that follow each other; one that falls back, of a book that refills. Where the \
simulated curve stays flat, trading in it costs too little.</p>
  {% endif %}
  {% for name, reason in absent %}
  <p class="explain">{{ name }}: {{ reason }}.</p>
  {% endfor %}
</section>
<section id="scores">
  <h2>Scores</h2>
  <div class="scroll" role="region" aria-label="Scores" tabindex="0">
  <table>
    <thead><tr><th scope="col">Statistic</th><th scope="col">L1</th><th scope="col">99 %</th><th scope="col">Real to \
real</th><th scope="col">Wasserstein</th><th scope="col">Real to real</th><th scope="col" class="prose">What is wrong \
when it is off</th></tr></thead>
    <tbody>
    {% for row in rows %}
    <tr><th scope="row">{{ row.title }}</th>
    {% if row.reason %}<td colspan="5" class="reason">{{ row.reason }}</td>{% else %}
    <td class="made">{{ row.l1 }}</td><td class="range">{{ row.interval }}</td><td>{{ row.l1_floor }}</td>\
<td class="made">{{ row.wasserstein }}</td><td>{{ row.wasserstein_floor }}</td>{% endif %}
    <td class="prose">{{ row.meaning }}</td></tr>
    {% endfor %}
    </tbody>
  </table>
  </div>
  <p class="explain">L1 is half the distance of histograms, from 0 to 1; Wasserstein is of values scaled to unit \
variance. Real to real are the halves of the real stretch against each other: what no model can be asked to beat.</p>
</section>
<section id="provenance">
  <h2>Provenance</h2>
  <dl>{% for name, value in provenance.items() %}<dt>{{ name }}</dt><dd>{% if name == "command" %}\
<code>{{ value }}</code>{% else %}{{ value }}{% endif %}</dd>{% endfor %}</dl>
</section>
</main>
<script>{{ plotly | safe }}</script>
<script>{{ script | safe }}</script>
</body>
</html>
"""


def render(found: BookComparison, panels: BookPanels, provenance: Mapping[str, str]) -> str:
    """Return the page; the same values and provenance give the same bytes.

    `real` and `simulated` of the provenance go into the title, `command` is set as code.
    """
    drawn = _drawn(panels)
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_TEMPLATE)
    return template.render(
        title=f"{provenance['simulated']} beside {provenance['real']}",
        cards=[_card(found, "l1", "L1, mean"), _card(found, "wasserstein", "Wasserstein, mean")],
        depths=[("depth_real", "Real"), ("depth_simulated", "Simulated")],
        impacts=[(f"impact_{name}", IMPACT[name].title) for name in panels.impact],
        absent=[(IMPACT[name].title, reason) for name, reason in found.absent.items()],
        rows=[_row(row) for row in found.rows],
        drawn={name: _specification(figure) for name, figure in drawn.items()},
        provenance=provenance,
        plotly=plotly_library(),
        style=_read("report.css"),
        script=_read("report.js"),
    )


def _card(found: BookComparison, distance: Any, title: str) -> dict[str, str]:
    floor = found.floor_mean(distance)
    told = sum(getattr(row, distance) is not None for row in found.rows)
    return {
        "title": title,
        "value": numbers.number(found.mean(distance)),
        "floor": numbers.number(None if floor != floor else floor),
        "note": f"median {numbers.number(found.median(distance))}, of {told} statistics that both sides tell",
    }


def _row(row: Any) -> dict[str, str]:
    about = STATISTICS[row.name]
    told = {"title": about.title, "meaning": about.meaning, "reason": row.reason}
    if row.l1 is None:
        return told
    values = {"l1": row.l1.value, "wasserstein": row.wasserstein.value}
    values |= {"l1_floor": row.l1_floor, "wasserstein_floor": row.wasserstein_floor}
    return (
        told
        | {name: numbers.number(value) for name, value in values.items()}
        | {"interval": numbers.interval(row.l1.interval)}
    )


def _drawn(panels: BookPanels) -> dict[str, go.Figure]:
    highest = max(float(panel.lots.max(initial=1.0)) for panel in panels.depth)
    drawn = {
        name: heat_map(panel, highest)
        for name, panel in zip(("depth_real", "depth_simulated"), panels.depth, strict=True)
    }
    for name, responses in panels.impact.items():
        figure = figures._figure("messages after it", "response of the mid, ticks")
        for values, label, colour, dash in zip(
            responses, ("real", "simulated"), (figures.REAL, figures.SYNTHETIC), ("solid", "dash"), strict=True
        ):
            figures._line(figure, panels.lags.tolist(), values.tolist(), label, {"color": colour, "dash": dash})
        figure.update_xaxes(type="log")
        drawn[f"impact_{name}"] = figure
    return drawn


def heat_map(panel: DepthPanel, highest: float) -> go.Figure:
    """Draw depth by colour, on a logarithmic scale up to `highest` lots, and the mid as a line."""
    figure = figures._figure("time from the start, s", "price, ticks from the first mid")
    logs = np.log10(1.0 + panel.lots).round(3)
    depth = go.Heatmap(
        x=panel.seconds.round(3).tolist(),
        y=panel.ticks.tolist(),
        z=[[value or None for value in row] for row in logs.tolist()],
        zmin=0.0,
        zmax=math.log10(1.0 + highest),
        colorscale="Viridis",
        colorbar={"title": {"text": "lots, log10"}, "thickness": 12},
        hovertemplate="%{x:.4g} s, %{y:.4g} ticks: 10^%{z:.2f} lots<extra></extra>",
    )
    figure.add_trace(depth)
    figures._line(figure, panel.seconds.tolist(), panel.mid.tolist(), "mid", {"color": figures.SYNTHETIC, "width": 1.2})
    figure.update_layout(hovermode="closest", showlegend=False)
    figure.update_yaxes(range=[float(panel.ticks[0]), float(panel.ticks[-1])])
    return figure


def _specification(figure: go.Figure) -> str:
    text = json.dumps(figure.to_plotly_json(), sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c")

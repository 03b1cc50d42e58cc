"""The report's figures, from the panels of a record. They draw and label; they compute no statistic.

Text and grid take their colours from the page's style sheet, so that one figure serves light, dark and paper. Line
colours are told apart by people with any colour vision, and each kind of line has its own dash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from synth_pipeline.fidelity.evaluation import (
    AutocorrelationPanel,
    CorrelationPanel,
    Curves,
    Evaluation,
    Exhibits,
    Gappy,
    HistogramPanel,
    MapPanel,
    NeighbourPanel,
    Panels,
    PathPanel,
    QuantilePanel,
)
from synth_pipeline.reports import numbers

REAL, FRESH, SYNTHETIC = "#3574c4", "#7d8590", "#cf5f08"
REAL_BAND, SYNTHETIC_BAND, SYNTHETIC_CORE = "rgba(53,116,196,0.20)", "rgba(207,95,8,0.16)", "rgba(207,95,8,0.26)"
HEIGHT = 340


def figures(record: Evaluation) -> dict[str, go.Figure]:
    """Return the figures of a record by name; what the data were too short for is missing."""
    return {**_of_panels(record.panels), **_of_exhibits(record.exhibits)}


def _of_panels(panels: Panels | None) -> dict[str, go.Figure]:
    if panels is None:
        return {}
    drawn = {
        "price": paths(panels.price, "price change, %"),
        "drawdown": paths(panels.drawdown, "below the highest price so far, %"),
        "histogram": histogram(panels.histogram),
        "quantiles": quantiles(panels.quantiles),
    }
    if panels.return_acf:
        drawn["return_acf"] = autocorrelation(panels.return_acf, "autocorrelation of returns")
    if panels.absolute_return_acf:
        drawn["absolute_return_acf"] = autocorrelation(panels.absolute_return_acf, "autocorrelation of |returns|")
    return drawn


def _of_exhibits(shown: Exhibits | None) -> dict[str, go.Figure]:
    if shown is None:
        return {}
    size, share = "size of the return, standard deviations", "share of returns beyond"
    curves_of = {
        "losses": (shown.losses, size, share, "log"),
        "gains": (shown.gains, size, share, "log"),
        "squared_return_acf": (shown.squared_return_acf, "lag, steps", "autocorrelation of squared returns", "linear"),
        "volatility_by_scale": (shown.volatility_by_scale, "steps", "volatility over that of a random walk", "log"),
    }
    drawn = {name: curves(panel, *rest) for name, (panel, *rest) in curves_of.items() if panel}
    fans = {"returns": (shown.returns, "return, %"), "rolling_volatility": (shown.rolling_volatility, "volatility, %")}
    drawn |= {name: paths(panel, label, 1) for name, (panel, label) in fans.items() if panel}
    if shown.correlations:
        drawn |= correlations(shown.correlations)
    if shown.map:
        drawn["map"] = plane(shown.map)
    if shown.neighbours:
        drawn |= neighbours(shown.neighbours)
    return drawn


def paths(panel: PathPanel, label: str, examples: int = 4) -> go.Figure:
    """Draw the held-out path in the fan of synthetic ones, some of them as examples."""
    size, unit = numbers.duration(panel.seconds[-1])
    time = [second / size for second in panel.seconds]
    figure = _figure(f"time from the start, {unit}", label)
    for low, high, colour, name in (("5", "95", SYNTHETIC_BAND, "90 %"), ("25", "75", SYNTHETIC_CORE, "50 %")):
        _band(figure, time, panel.quantiles[low], panel.quantiles[high], colour, f"synthetic, {name} of paths")
    for index, example in enumerate(panel.examples[:examples]):
        style = {"color": SYNTHETIC, "width": 0.8}
        _line(figure, time, example, "synthetic, examples", style, legendgroup="examples", showlegend=index == 0)
    _line(figure, time, panel.fresh, "real, end of training", {"color": FRESH, "width": 1.6, "dash": "dot"})
    _line(figure, time, panel.real, "real, held out", {"color": REAL, "width": 2.4})
    return figure


def histogram(panel: HistogramPanel) -> go.Figure:
    """Draw the three return densities on a logarithmic axis."""
    figure = _figure("return, standard deviations of the held-out returns", "density")
    centres = [(left + right) / 2 for left, right in zip(panel.edges, panel.edges[1:], strict=False)]
    for values, name, style in _three(panel.real, panel.fresh, panel.synthetic):
        shown = [value if value else None for value in values]
        _line(figure, centres, shown, name, {**style, "shape": "hvh"}, connectgaps=False)
    figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    return figure


def quantiles(panel: QuantilePanel) -> go.Figure:
    """Draw the quantiles of training and synthetic returns against those of the held-out returns."""
    figure = _figure("quantile of the held-out returns, their standard deviations", "quantile of the sample, the same")
    reach = [panel.real[0], panel.real[-1]]
    _line(figure, reach, reach, "equal", {"color": REAL, "width": 1.4})
    for values, name, style, symbol in (
        (panel.fresh, "real, training", FRESH, "circle-open"),
        (panel.synthetic, "synthetic", SYNTHETIC, "diamond"),
    ):
        marker = {"color": style, "size": 6, "symbol": symbol}
        figure.add_trace(go.Scatter(x=panel.real, y=values, name=name, mode="markers", marker=marker))
    figure.update_layout(hovermode="closest")
    return figure


def autocorrelation(panel: AutocorrelationPanel, label: str) -> go.Figure:
    """Draw three autocorrelation curves over the band of resampled real data."""
    figure = _figure("lag, steps", label)
    _band(figure, panel.lags, panel.low, panel.high, REAL_BAND, "real resamples, 5–95 %")
    for values, name, style in _three(panel.real, panel.fresh, panel.synthetic):
        _line(figure, panel.lags, values, name, style)
    return figure


def curves(panel: Curves, across: str, up: str, scale: str) -> go.Figure:
    """Draw three curves over one axis, both axes on a scale."""
    figure = _figure(across, up)
    for values, name, style in _three(panel.real, panel.fresh, panel.synthetic):
        _line(figure, panel.at, values, name, style, connectgaps=False)
    figure.update_xaxes(type=scale)
    figure.update_yaxes(type=scale, **({"exponentformat": "power", "dtick": 1} if "share" in up else {}))
    return figure


def correlations(panel: CorrelationPanel) -> dict[str, go.Figure]:
    """Draw the correlations of the real data, of the synthetic ones, and what the latter have more, on one scale."""
    differences = [
        [None if one is None or two is None else two - one for one, two in zip(*rows, strict=True)]
        for rows in zip(panel.real, panel.synthetic, strict=True)
    ]
    return {
        f"correlations_{name}": _matrix(panel.names, rows)
        for name, rows in (("real", panel.real), ("synthetic", panel.synthetic), ("difference", differences))
    }


def _matrix(names: list[str], rows: list[Gappy]) -> go.Figure:
    figure = _figure("", "")
    scale = [[0.0, REAL], [0.5, "rgba(128,128,128,0.06)"], [1.0, SYNTHETIC]]
    figure.add_trace(
        go.Heatmap(
            x=names,
            y=names,
            z=rows,
            zmin=-1.0,
            zmax=1.0,
            colorscale=scale,
            xgap=1,
            ygap=1,
            colorbar={"thickness": 10, "tickvals": [-1, -0.5, 0, 0.5, 1]},
            hovertemplate="%{x}, %{y}: %{z:.2f}<extra></extra>",
        )
    )
    figure.update_layout(hovermode="closest", margin={"l": 8, "r": 8, "t": 8, "b": 8})
    figure.update_yaxes(autorange="reversed", showline=False, title=None, ticks="")
    figure.update_xaxes(showline=False, title=None, ticks="", tickangle=-45)
    return figure


def plane(panel: MapPanel) -> go.Figure:
    """Draw windows as points, real ones below synthetic ones."""
    figure = _figure("first principal component", "second principal component")
    for points, name, colour, symbol in (
        (panel.train, "real, training", FRESH, "circle"),
        (panel.holdout, "real, held out", REAL, "square"),
        (panel.synthetic, "synthetic", SYNTHETIC, "diamond-open"),
    ):
        across, up = zip(*points, strict=True)
        marker = {"color": colour, "size": 6, "symbol": symbol, "opacity": 0.65}
        hover = {"hovertemplate": f"{name}<extra></extra>"}
        figure.add_trace(go.Scatter(x=across, y=up, name=name, mode="markers", marker=marker, **hover))
    figure.update_layout(hovermode="closest")
    return figure


def neighbours(panel: NeighbourPanel) -> dict[str, go.Figure]:
    """Draw each synthetic window beside the training window nearest to it."""
    drawn = {}
    for number, pair in enumerate(panel.pairs, start=1):
        figure = _figure("step of the window", panel.feature)
        steps = list(range(len(pair.training)))
        _line(figure, steps, pair.training, "real, training", {"color": FRESH, "width": 2.2})
        _line(figure, steps, pair.synthetic, "synthetic", {"color": SYNTHETIC, "width": 2.2, "dash": "dash"})
        figure.update_layout(height=240)
        drawn[f"neighbours_{number}"] = figure
    return drawn


def _three(
    real: Sequence[float | None], fresh: Sequence[float | None], synthetic: Sequence[float | None]
) -> list[tuple[Sequence[float | None], str, dict[str, Any]]]:
    return [
        (fresh, "real, training", {"color": FRESH, "width": 1.6, "dash": "dot"}),
        (real, "real, held out", {"color": REAL, "width": 2.2}),
        (synthetic, "synthetic", {"color": SYNTHETIC, "width": 2.2, "dash": "dash"}),
    ]


def _figure(across: str, up: str) -> go.Figure:
    axis = {"zeroline": False, "showline": True, "linewidth": 1, "ticks": "outside", "automargin": True}
    layout = go.Layout(
        template="none",
        height=HEIGHT,
        margin={"l": 56, "r": 12, "t": 8, "b": 44},
        font={"family": "system-ui, sans-serif", "size": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "xanchor": "left", "x": 0},
        xaxis={**axis, "title": {"text": across, "standoff": 8}},
        yaxis={**axis, "title": {"text": up, "standoff": 8}},
    )
    return go.Figure(layout=layout)


def _line(figure: go.Figure, x: Any, y: Any, name: str, style: dict[str, Any], **more: Any) -> None:
    figure.add_trace(go.Scatter(x=x, y=y, name=name, mode="lines", line=style, hovertemplate="%{y:.3g}", **more))


def _band(figure: go.Figure, x: Any, low: Any, high: Any, colour: str, name: str) -> None:
    edge = {"width": 0, "color": colour}
    common = {"x": x, "mode": "lines", "line": edge, "legendgroup": name, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(y=low, showlegend=False, name=name, **common))
    figure.add_trace(go.Scatter(y=high, fill="tonexty", fillcolor=colour, name=name, **common))

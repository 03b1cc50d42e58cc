"""Plain pictures as SVG text, to lie beside a checkpoint: curves, bundles of lines, clouds of points.

Positions are written to a tenth of a pixel and nothing else is: the same numbers give the same bytes anywhere.
https://www.w3.org/TR/SVG11/
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from synth_pipeline.series import FloatArray

_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")
_WIDE, _HIGH, _MARGIN = 760.0, 420.0, 46.0
_PANEL_WIDE, _PANEL_HIGH = 330.0, 120.0
_MOST_POINTS = 600
"""Of a curve; more would not be seen."""


def curves(title: str, lines: Mapping[str, FloatArray]) -> str:
    """Draw lines of (x, y), each of shape (points, 2), in one frame."""
    frame = _Frame(np.concatenate(list(lines.values())), _MARGIN, _MARGIN, _WIDE, _HIGH)
    drawn = [frame.axes()]
    for at, (name, line) in enumerate(lines.items()):
        some = np.unique(np.linspace(0, len(line) - 1, min(len(line), _MOST_POINTS)).astype(np.int64))
        drawn += [frame.line(line[some], _COLOURS[at % len(_COLOURS)]), _key(at, name)]
    return _page(title, _WIDE + 2 * _MARGIN, _HIGH + 2 * _MARGIN, drawn)


def points(title: str, clouds: Mapping[str, FloatArray]) -> str:
    """Draw clouds of (x, y), each of shape (points, 2), in one frame without a scale."""
    frame = _Frame(np.concatenate(list(clouds.values())), _MARGIN, _MARGIN, _WIDE, _HIGH)
    drawn = [frame.border()]
    for at, (name, cloud) in enumerate(clouds.items()):
        drawn += [frame.dots(cloud, _COLOURS[at % len(_COLOURS)]), _key(at, name)]
    return _page(title, _WIDE + 2 * _MARGIN, _HIGH + 2 * _MARGIN, drawn)


def bundles(title: str, panels: Mapping[str, FloatArray]) -> str:
    """Draw panels, two a row and in the scale of both, each of lines of shape (lines, steps)."""
    drawn, every = [], list(panels.items())
    for at, (name, lines) in enumerate(every):
        row = np.concatenate([each for _, each in every[at - at % 2 : at - at % 2 + 2]])
        steps = np.arange(row.shape[1], dtype=np.float64)
        left = _MARGIN + at % 2 * (_PANEL_WIDE + _MARGIN)
        top = _MARGIN + at // 2 * (_PANEL_HIGH + _MARGIN)
        corners = np.array([[0.0, row.min()], [steps[-1], row.max()]])
        frame = _Frame(corners, left, top, _PANEL_WIDE, _PANEL_HIGH)
        colour = _COLOURS[at % 2]
        drawn += [frame.axes(), _text(left, top - 6, name)]
        drawn += [frame.line(np.stack((steps, line), axis=1), colour, faint=True) for line in lines]
    rows = -(-len(every) // 2)
    return _page(title, 2 * _PANEL_WIDE + 3 * _MARGIN, rows * (_PANEL_HIGH + _MARGIN) + _MARGIN, drawn)


class _Frame:
    """A rectangle of the page and the range of numbers that it shows."""

    def __init__(self, shown: FloatArray, left: float, top: float, wide: float, high: float) -> None:
        self.low = shown.min(axis=0)
        self.span = np.maximum(shown.max(axis=0) - self.low, 1e-12)
        self.left, self.top, self.wide, self.high = left, top, wide, high

    def places(self, numbers: FloatArray) -> FloatArray:
        """Return where numbers of shape (points, 2) lie on the page."""
        share = (numbers - self.low) / self.span
        return np.stack((self.left + share[:, 0] * self.wide, self.top + (1 - share[:, 1]) * self.high), axis=1)

    def border(self) -> str:
        """Draw the rectangle."""
        return (
            f'<rect x="{self.left:.1f}" y="{self.top:.1f}" width="{self.wide:.1f}" height="{self.high:.1f}" '
            'fill="none" stroke="#d0d7de"/>'
        )

    def axes(self) -> str:
        """Draw the rectangle with the ends of both ranges."""
        bottom, right = self.top + self.high, self.left + self.wide
        high = self.low + self.span
        return self.border() + "".join(
            (
                _text(self.left - 4, bottom, f"{self.low[1]:.3g}", "end"),
                _text(self.left - 4, self.top + 10, f"{high[1]:.3g}", "end"),
                _text(self.left, bottom + 14, f"{self.low[0]:.6g}"),
                _text(right, bottom + 14, f"{high[0]:.6g}", "end"),
            )
        )

    def line(self, numbers: FloatArray, colour: str, *, faint: bool = False) -> str:
        """Draw a line through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.places(numbers))
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-opacity="{0.35 if faint else 0.9}"/>'

    def dots(self, numbers: FloatArray, colour: str) -> str:
        """Draw points."""
        marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in self.places(numbers))
        return f'<g fill="{colour}" fill-opacity="0.6">{marks}</g>'


def _key(at: int, name: str) -> str:
    left, top = _MARGIN + 10, _MARGIN + 16 + 15 * at
    return f'<circle cx="{left:.1f}" cy="{top - 4:.1f}" r="4" fill="{_COLOURS[at % len(_COLOURS)]}"/>' + _text(
        left + 9, top, name
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _page(title: str, wide: float, high: float, drawn: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" font-family="sans-serif" '
        f'font-size="11" fill="#1f2328"><rect width="100%" height="100%" fill="#ffffff"/>'
    )
    return "\n".join((head, _text(_MARGIN, 18, title), *drawn, "</svg>\n"))

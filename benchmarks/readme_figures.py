"""Fill the README's table of figures from the documents that the benchmarks printed: `make readme-figures`.

`make bench` leaves one document a script in `results/`; nothing in the table is typed by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures: made by make readme-figures -->", "<!-- end of figures -->"
_SIGNS = {"high": "≥", "low": "≤", "equal": "="}


def table(documents: list[dict[str, Any]]) -> str:
    """Return the Markdown table of all claims, with the machines that they were measured on."""
    lines = ["| figure | measured | bar | |", "| --- | ---: | ---: | --- |"]
    for document in documents:
        for claim in document["claims"]:
            value = _written(claim["value"])
            mark = "" if claim["met"] else "**falls short**"
            remarks = " ".join(part for part in (mark, claim["note"]) if part)
            bar = f"{_SIGNS[claim['goal']]} {_written(claim['bar'])}"
            cells = (f"`{claim['id']}` {claim['what']}", value, bar, remarks)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    machines = sorted({f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']:.0f} GiB" for m in _machines(documents)})
    return "\n".join([*lines, "", f"Measured on: {'; '.join(machines)}."])


def _written(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _machines(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [document["machine"] for document in documents]


def filled(readme: str, documents: list[dict[str, Any]]) -> str:
    """Return the README with its table of figures replaced. Raises `ValueError` when it has no place for one."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{README} has no lines {BEGIN!r} and {END!r}: the table stands between them")
    return f"{before}{BEGIN}\n{table(documents)}\n{END}{after}"


def documents() -> list[dict[str, Any]]:
    """Return what the benchmarks printed, by script name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8"), documents()), encoding="utf-8")

"""What one day of ticks is once it is on disk: its tables, their scale, what was covered, what was counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth_pipeline.schema import Scale


@dataclass(frozen=True)
class DayTicks:
    """The tick tables of one instrument and UTC day, as files of `store`."""

    files: Mapping[str, Path]
    """By table name of `schema.TICK_TABLES`."""
    rows: Mapping[str, int]
    """Rows of every file."""
    scale: Scale
    coverage: list[tuple[int, int]]
    """Half-open stretches in which the recorder ran."""
    visible_levels: int = 0
    """Levels a side that the source shows; 0 when all."""
    close_update_id: int | None = None
    """Final update id of the day, None when the book was unknown at its end."""
    counts: dict[str, Any] = field(default_factory=dict)
    """What was counted on the way, as JSON values."""


def file_metadata(
    coverage: list[tuple[int, int]], visible_levels: int = 0, close_update_id: int | None = None
) -> dict[str, str]:
    """Return what every file of a day carries besides the scale."""
    close = {} if close_update_id is None else {"close_update_id": str(close_update_id)}
    return {"visible_levels": str(visible_levels), "coverage": json.dumps(coverage)} | close

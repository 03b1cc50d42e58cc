"""What a recording counts while it runs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_LAGS = 4096


@dataclass
class Figures:
    """Counts since the start, and what they are now."""

    messages: int = 0
    """Received, whatever became of them."""
    bytes: int = 0
    answers: int = 0
    """Messages about no symbol of ours, such as answers to subscriptions; recorded."""
    gaps: int = 0
    """Holes in the venue's ids."""
    snapshots: int = 0
    """Depth snapshots, asked for or sent by the venue."""
    snapshot_failures: int = 0
    connects: int = 0
    connect_failures: int = 0
    disconnects: int = 0
    """Connections that ended without our doing."""
    handovers: int = 0
    """Connections that a new one replaced before the venue's cut."""
    stalls: int = 0
    """Connections given up because they, or a stream of theirs, fell silent."""
    duplicates: int = 0
    """Messages left out because another connection delivered them too."""
    repeated: int = 0
    """Messages that came again on the same connection; recorded."""
    garbage: int = 0
    """Messages of no form that the venue has; recorded."""
    refusals: int = 0
    """Requests of ours that the venue refused."""
    dropped: int = 0
    """Messages that the disk was too slow for."""
    clock_steps: int = 0
    fault: str | None = None
    """The last thing that went wrong, in a few words."""
    lags_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_LAGS), repr=False)
    """`receive - event` of the latest messages."""
    offset_ns: int | None = None
    """Local minus venue clock, as estimated."""
    offset_error_ns: int | None = None
    file_bytes: int = 0
    """Compressed, on disk."""
    held_bytes: int = 0
    """Waiting to be written."""
    disk_lag_seconds: float = 0.0
    seconds: float = 0.0

    def lag_ms(self, quantile: float) -> float | None:
        """Return a quantile of the latest lags, the clock offset taken out, in ms."""
        if not self.lags_ns:
            return None
        raw = float(np.quantile(list(self.lags_ns), quantile))
        return (raw - (self.offset_ns or 0)) / 1e6

    def document(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        counts = {name: value for name, value in vars(self).items() if name != "lags_ns" and not name.endswith("_ns")}
        offset, error = (
            None if value is None else round(value / 1e6, 3) for value in (self.offset_ns, self.offset_error_ns)
        )
        lags = {name: self.lag_ms(quantile) for name, quantile in (("lag_median_ms", 0.5), ("lag_p99_ms", 0.99))}
        rounded = {name: None if value is None else round(value, 3) for name, value in lags.items()}
        times = {"disk_lag_seconds": round(self.disk_lag_seconds, 3), "seconds": round(self.seconds, 3)}
        return counts | rounded | {"clock_offset_ms": offset, "clock_offset_error_ms": error} | times

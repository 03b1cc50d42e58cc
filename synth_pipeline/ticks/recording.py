"""When the recorder ran, and what it says of itself: coverage, and the gaps that no id shows.

The recorder's notes are EVENT records of the raw log, JSON objects `{"event": NAME, …}`. What each means here:

- `continues`: on that side of the log the recording goes on over the day's border.
- `start` behind other records: the coverage ends there and begins anew with the first message after; between them lies
  a gap of all streams, `not_recording`. At the beginning of a log it says nothing new.
- `stop`: nothing is recorded until the next message; the same gap.
- `dropped` {since_ns, messages}: messages of any stream may be missing since then; a gap of all streams.
- `torn`: what a crash cut off; a gap of all streams from the last message before to the first after.
- `disconnected`, while no other connection is open: the top of book is unknown from the last message before to the
  first after the next `connected`, a gap of quotes; of trades and the book their ids decide.
- `gap`, `connect_failed`, `snapshot_failed`, `clock` and any other: information for people; counted.

No message at all for longer than `rawlog.SILENCE_NS` ends the coverage too, with a gap `silence`.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from synth_pipeline.archives.rawlog import SILENCE_NS
from synth_pipeline.schema import NS_PER_DAY
from synth_pipeline.ticks.assemble import Hole

_UNREADABLE = "unreadable"


class Recording:
    """Coverage of one day's log."""

    def __init__(self, day_start: int) -> None:
        self.notes: Counter[str] = Counter()
        """Notes by name."""
        self._day_start = day_start
        self._stretches: list[list[int]] = []
        self._silent: list[bool] = []
        self._holes: list[Hole] = []
        self._open: set[int] = set()
        self._cut_off_ns: int | None = None
        """When the last message came before the last open connection ended."""
        self._pending: dict[tuple[str, str], int] = {}
        """Gaps that the next message ends: since when, by stream and reason."""
        self._continued_before = self._continues_after = False
        self._begins_anew = False

    @property
    def latest_ns(self) -> int:
        """When the last message came; 0 before the first."""
        return self._stretches[-1][1] if self._stretches else 0

    def messages(self, times: np.ndarray, steps: list[tuple[int, int]]) -> None:
        """Take the times of some messages, and the clock steps among them."""
        if not len(times):
            return
        self._holes += [Hole(before, after, "all", "clock_step", -1) for before, after in steps]
        first = int(times[0])
        self._holes += [Hole(since, first, stream, reason, -1) for (stream, reason), since in self._pending.items()]
        self._pending = {}
        silent = first - self.latest_ns > SILENCE_NS
        if not self._stretches or self._begins_anew or silent:
            self._begin(first, silent=silent and not self._begins_anew)
        for row in np.flatnonzero(np.diff(times) > SILENCE_NS).tolist():
            self._stretches[-1][1] = int(times[row])
            self._begin(int(times[row + 1]), silent=True)
        self._stretches[-1][1] = int(times[-1])

    def _begin(self, first: int, *, silent: bool) -> None:
        self._stretches.append([first, first])
        self._silent.append(silent)
        self._begins_anew = False

    def note(self, payload: bytes, received_ns: int) -> str:
        """Take a note of the recorder and return its name."""
        try:
            facts = msgspec.json.decode(payload, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            facts = {}
        name = str(facts.get("event", _UNREADABLE))
        self.notes[name] += 1
        match name:
            case "continues":
                self._continued_before |= not self._stretches
                self._continues_after |= bool(self._stretches)
            case "start" | "stop":
                self._open, self._cut_off_ns = set(), None
                if self._stretches:
                    self._begins_anew = True
                    self._pending["all", "not_recording"] = self.latest_ns
            case "torn" if self._stretches:
                self._pending["all", "torn"] = self.latest_ns
            case "dropped":
                since = min(_whole(facts, "since_ns", received_ns), received_ns)
                self._holes.append(Hole(since, received_ns, "all", "dropped", _whole(facts, "messages", -1)))
            case "connected":
                self._connected(_whole(facts, "connection", 0))
            case "disconnected":
                self._open.discard(_whole(facts, "connection", 0))
                if not self._open and self._stretches and self._cut_off_ns is None:
                    self._cut_off_ns = self.latest_ns
        return name

    def _connected(self, connection: int) -> None:
        self._open.add(connection)
        if self._cut_off_ns is not None:
            self._pending["quotes", "disconnected"] = self._cut_off_ns
            self._cut_off_ns = None

    def coverage(self) -> list[tuple[int, int]]:
        """Return the half-open stretches of recording; one that goes on over the day's border reaches it."""
        found = [[start, end + 1] for start, end in self._stretches]
        if found and self._continued_before:
            found[0][0] = self._day_start
        if found and self._continues_after:
            found[-1][1] = self._day_start + NS_PER_DAY
        return [(start, end) for start, end in found]

    def holes(self) -> list[Hole]:
        """Return the gaps that notes, clock steps and silences tell of."""
        silences = (
            Hole(before[1], after[0], "all", "silence", -1)
            for (before, after), silent in zip(pairwise(self._stretches), self._silent[1:], strict=True)
            if silent
        )
        return [*self._holes, *silences]


def _whole(facts: dict[str, Any], name: str, default: int) -> int:
    """A whole number of a note, or the default where the note says none that a column could hold."""
    value = facts.get(name)
    return value if isinstance(value, int) and -(2**62) < value < 2**62 else default

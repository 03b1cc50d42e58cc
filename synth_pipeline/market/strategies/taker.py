"""Reference takers: a parent order worked off by market orders, by the clock (TWAP) or by the volume of others (POV).

What a market order does not get, since the book ends, is sent again with the next slice. Both schedules and their
names are those of execution desks (Almgren and Chriss 2000, "Optimal execution of portfolio transactions", J. Risk 3,
whose risk-neutral optimum the first one is).
"""

from __future__ import annotations

from synth_pipeline.errors import InputError
from synth_pipeline.market.participant import EXPIRED, FILLED, REFUSED, Participant


class Taker:
    """Sends as many lots as its schedule says are due; raises `InputError` for a parent order without lots."""

    def __init__(self, participant: Participant, side: int, lots: int) -> None:
        if lots < 1:
            raise InputError(f"a parent order of {lots} lots: give at least one")
        self.participant = participant
        self.side, self.lots = side, lots
        self.filled = 0
        """Lots traded, by the reports so far."""
        self._under_way = 0

    @property
    def is_done(self) -> bool:
        """Whether all has been traded."""
        return self.filled == self.lots

    def act(self, now_ns: int) -> None:
        """Send what is due."""
        for report in self.participant.reports:
            if report.event in (FILLED, EXPIRED, REFUSED):
                self._under_way -= report.lots
                self.filled += report.lots if report.event == FILLED else 0
        lots = min(self._due(now_ns), self.lots) - self.filled - self._under_way
        if lots > 0:
            self.participant.submit(self.side, None, lots, kind="market")
            self._under_way += lots

    def _due(self, now_ns: int) -> int:
        """Return how many lots should have been sent by a time."""
        raise NotImplementedError


class Twap(Taker):
    """Equal slices in equal times, the first at the start, the last before the end."""

    def __init__(
        self, participant: Participant, side: int, lots: int, *, start_ns: int, end_ns: int, slices: int
    ) -> None:
        super().__init__(participant, side, lots)
        if slices < 1 or end_ns <= start_ns:
            raise InputError(f"{slices} slices from {start_ns} to {end_ns} ns: give at least one, and time for it")
        self._start_ns, self._length_ns, self._slices = start_ns, end_ns - start_ns, slices

    def _due(self, now_ns: int) -> int:
        if now_ns < self._start_ns:
            return 0
        begun = min((now_ns - self._start_ns) * self._slices // self._length_ns + 1, self._slices)
        return self.lots * begun // self._slices


class Pov(Taker):
    """A share of the volume: with every step so many lots that the own ones are `share` of all traded so far."""

    def __init__(self, participant: Participant, side: int, lots: int, *, share: float) -> None:
        super().__init__(participant, side, lots)
        if not 0 < share < 1:
            raise InputError(f"share is {share}: it must lie between 0 and 1")
        self._share = share
        self._volume = 0

    def act(self, now_ns: int) -> None:
        """Send what is due."""
        self._volume += int(self.participant.trades["lots"].sum())
        super().act(now_ns)

    def _due(self, now_ns: int) -> int:  # noqa: ARG002 - the clock of this one is the volume
        others = self._volume - self.filled
        return int(max(others, 0) * self._share / (1 - self._share))

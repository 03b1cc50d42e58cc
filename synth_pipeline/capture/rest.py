"""The venue's REST side as the recorder needs it: depth snapshots and the clock, within the venue's request weight."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from synth_pipeline.errors import SynthError
from synth_pipeline.venues import Venue

if TYPE_CHECKING:
    import httpx

_SHARE = 0.5
"""Of the venue's weight limit, which other programs behind the same address share."""
_MINUTE = 60.0
_THROTTLED, _BANNED = 429, 418
_DEFAULT_WAIT = {_THROTTLED: 60.0, _BANNED: 120.0}
"""Seconds to stay away when the answer does not say."""
_TIMEOUT_SECONDS = 10.0


class RequestFailed(SynthError):  # noqa: N818 - what happened, as the note says it
    """A request that the venue did not answer as asked; the message says why in a few words."""


class Rest:
    """One venue's REST side."""

    def __init__(self, venue: Venue, base_url: str) -> None:
        self._venue, self._base_url = venue, base_url
        self._spent: deque[tuple[float, int]] = deque()
        self._closed_until = 0.0
        self._client: httpx.AsyncClient | None = None

    async def snapshot(self, symbol: str) -> bytes:
        """Return the depth snapshot as the venue sent it. Raises `RequestFailed`."""
        assert self._venue.snapshot_path is not None
        await self._afford(self._venue.snapshot_weight)
        return await self._get(self._venue.snapshot_path.format(symbol=symbol.upper()))

    async def time(self) -> tuple[int, int, int]:
        """Return wall stamps before and after, and the venue's time between them, ns. Raises `RequestFailed`."""
        await self._afford(1)
        sent_ns = time.time_ns()
        answer = await self._get(self._venue.time_path)
        return sent_ns, time.time_ns(), self._venue.server_time_ns(answer)

    async def _afford(self, weight: int) -> None:
        """Wait until the last minute's requests leave room for this one, and until a ban is over."""
        limit = self._venue.weight_per_minute * _SHARE
        while True:
            now = time.monotonic()
            while self._spent and self._spent[0][0] <= now - _MINUTE:
                self._spent.popleft()
            wait = self._closed_until - now
            if limit and sum(spent for _, spent in self._spent) + weight > limit:
                wait = max(wait, self._spent[0][0] + _MINUTE - now)
            if wait <= 0:
                self._spent.append((now, weight))
                return
            await asyncio.sleep(wait)

    async def _get(self, path: str) -> bytes:
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(base_url=self._base_url, timeout=_TIMEOUT_SECONDS)
        try:
            answer = await self._client.get(path)
        except httpx.HTTPError as error:
            raise RequestFailed(f"{type(error).__name__}: {error}") from error
        if answer.status_code in _DEFAULT_WAIT:
            self._stay_away(answer.status_code, answer.headers.get("Retry-After", ""))
        if answer.status_code != httpx.codes.OK:
            raise RequestFailed(f"HTTP {answer.status_code}: {' '.join(answer.text[:200].split())}")
        return answer.content

    def _stay_away(self, status: int, retry_after: str) -> None:
        """Ask nothing before the venue allows it: going on at 429 is what turns into a ban, 418."""
        wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else _DEFAULT_WAIT[status]
        self._closed_until = max(self._closed_until, time.monotonic() + wait)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

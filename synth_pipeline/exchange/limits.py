"""How much a client may ask: request weight by the venue's own clockwork, and frames a second.

Binance counts weight by whole minutes; above the limit it answers 429, to who goes on 418, both with `Retry-After` in
seconds (https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits). Bybit counts requests in five
seconds and answers 403 (https://bybit-exchange.github.io/docs/v5/rate-limit).
"""

from __future__ import annotations

from synth_pipeline.exchange.protocol import Answer

_NS_PER_SECOND = 1_000_000_000
_BANNED_S = 120
"""The shortest ban of Binance."""
_BYBIT_REQUESTS, _BYBIT_WINDOW_S, _BYBIT_BAN_S = 600, 5, 600


class WeightLimit:
    """Binance's: every client of the exchange comes from one address."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._minute = 0
        self.used = 0
        self._refused_until_ns = 0
        self._retry_s = 0

    def admit(self, now_ns: int, weight: int) -> Answer | None:
        """Count one request and return None, or how it is refused."""
        if now_ns < self._refused_until_ns:
            return self._ban(now_ns)
        minute = now_ns // (60 * _NS_PER_SECOND)
        if minute != self._minute:
            self._minute, self.used = minute, 0
        self.used += weight
        if self.used <= self._per_minute:
            return None
        self._refused_until_ns = (minute + 1) * 60 * _NS_PER_SECOND
        return self._warn(now_ns)

    def exhaust(self, now_ns: int, seconds: int) -> Answer:
        """Refuse this request and all others for a while, as if the weight were used up."""
        self._refused_until_ns = now_ns + seconds * _NS_PER_SECOND
        self._retry_s = seconds
        return self._warn(now_ns)

    @property
    def headers(self) -> dict[str, str]:
        """What every answer says of the weight."""
        return {"X-MBX-USED-WEIGHT": str(self.used), "X-MBX-USED-WEIGHT-1M": str(self.used)}

    def _warn(self, now_ns: int) -> Answer:
        message = (
            f"Too much request weight used; current limit is {self._per_minute} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API."
        )
        return self._answer(429, message, now_ns)

    def _ban(self, now_ns: int) -> Answer:
        # A ban that was asked for lasts as long as asked, twice over; the venue's own begins at two minutes.
        self._refused_until_ns = now_ns + (2 * self._retry_s or _BANNED_S) * _NS_PER_SECOND
        until_ms = self._refused_until_ns // 1_000_000
        message = (
            f"Way too much request weight used; IP banned until {until_ms}. "
            "Please use WebSocket Streams for live updates to avoid bans."
        )
        return self._answer(418, message, now_ns)

    def _answer(self, status: int, message: str, now_ns: int) -> Answer:
        seconds = -(-(self._refused_until_ns - now_ns) // _NS_PER_SECOND)
        answer = Answer.json({"code": -1003, "msg": message}, status)
        return Answer(status, answer.body, {"Retry-After": str(max(1, seconds))})


class RequestLimit:
    """Bybit's: requests in a sliding window; who passes it is refused for ten minutes."""

    headers: dict[str, str] = {}  # noqa: RUF012 - never filled

    def __init__(self) -> None:
        self._times: list[int] = []
        self._refused_until_ns = 0

    def admit(self, now_ns: int, weight: int) -> Answer | None:  # noqa: ARG002 - each request counts once
        """Count one request and return None, or how it is refused."""
        if now_ns < self._refused_until_ns:
            return _TOO_FREQUENT
        since = now_ns - _BYBIT_WINDOW_S * _NS_PER_SECOND
        self._times = [*(time for time in self._times if time > since), now_ns]
        if len(self._times) <= _BYBIT_REQUESTS:
            return None
        return self.exhaust(now_ns, _BYBIT_BAN_S)

    def exhaust(self, now_ns: int, seconds: int) -> Answer:
        """Refuse this request and all others for a while."""
        self._refused_until_ns = now_ns + seconds * _NS_PER_SECOND
        return _TOO_FREQUENT


_TOO_FREQUENT = Answer(403, b"403, access too frequent")


class FrameLimit:
    """Frames that one client may send within a second."""

    def __init__(self, per_second: int | None) -> None:
        self._per_second = per_second
        self._second = 0
        self._count = 0

    def admit(self, now_ns: int) -> bool:
        """Count one frame; False for one too many."""
        if self._per_second is None:
            return True
        second = now_ns // _NS_PER_SECOND
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= self._per_second

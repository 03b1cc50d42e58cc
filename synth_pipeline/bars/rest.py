"""Asking a venue's REST interface politely: weights, Retry-After, jittered back-off, bounded retries.

429 (too many requests) and 418 (banned for not heeding 429) carry `Retry-After` in seconds at Binance
(https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits); Bybit answers 403 to an address that asks
too often, or `retCode` 10006 (https://bybit-exchange.github.io/docs/v5/rate-limit).
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import httpx
import numpy as np

from synth_pipeline.bars import BarSource
from synth_pipeline.errors import InputError, NoDataError, SynthError

Answer = TypeVar("Answer")
ATTEMPTS = 6
TIMEOUT_SECONDS = 20.0
LONGEST_WAIT = 300.0
"""A venue that wants a longer pause than this (seconds) is better asked again by a person."""
_FIRST_WAIT = 0.5
_TOO_MANY = {403, 418, 429}
_SPENT = 0.9
"""Share of the minute's weight after which the next minute is waited for; others may ask from this address too."""


class Later(SynthError):  # noqa: N818 - no fault, a request to come back
    """The venue did not answer this time; `seconds` is the pause it asks for, None when it does not say."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class RestSource(BarSource):
    """A venue's kline endpoint; a subclass states its paths and reads its answers."""

    weight_header: ClassVar[str | None] = None
    """Response header with the weight used in this minute."""
    weight_per_minute: ClassVar[int] = 0

    def __init__(self, base_url: str, *, rng: np.random.Generator) -> None:
        self.base_url = base_url.rstrip("/")
        self._rng = rng
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS)

    @classmethod
    def connect(cls, venue: str, base_url: str, *, rng: np.random.Generator) -> Self:  # noqa: ARG003 - the class is it
        """Open the source at the address of its venue."""
        return cls(base_url, rng=rng)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)

    @abstractmethod
    def check(self, answer: Any) -> None:
        """Raise `InputError` for an answer that refuses the request, `Later` for one that asks for patience."""

    def ask(self, path: str, params: Mapping[str, Any], read: Callable[[Any], Answer]) -> Answer:
        """Return what `read` makes of the JSON answer.

        Raises `InputError` for a refusal, `NoDataError` when the venue stays out of reach or answers in another form.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._ask_once(path, params, read)
            except Later as later:
                if attempt == ATTEMPTS or (later.seconds or 0) > LONGEST_WAIT:
                    raise NoDataError(
                        f"{self.base_url}{path} gave no answer in {attempt} attempt(s), the last one: {later}; "
                        "what came before is kept, run the same command again later"
                    ) from later
                backoff = _FIRST_WAIT * 2**attempt * float(self._rng.uniform(0.5, 1.0))
                self._wait(backoff if later.seconds is None else later.seconds + float(self._rng.uniform(0.0, 1.0)))
        raise AssertionError("the last attempt returns or raises")

    def _ask_once(self, path: str, params: Mapping[str, Any], read: Callable[[Any], Answer]) -> Answer:
        try:
            response = self._client.get(self.base_url + path, params=dict(params))
        except httpx.TransportError as error:
            raise Later(f"{type(error).__name__} {error}".strip()) from error
        if response.status_code in _TOO_MANY:
            asked = response.headers.get("Retry-After", "")
            raise Later(f"status {response.status_code}, asked too often", float(asked) if asked.isdigit() else None)
        if response.is_server_error:
            raise Later(f"status {response.status_code}")
        try:
            answer = response.json()
        except ValueError as error:
            raise Later(f"status {response.status_code} and no JSON: {response.text[:60]!r}") from error
        self.check(answer)
        if response.is_error:
            raise InputError(f"{response.url} was refused with status {response.status_code}: {response.text[:200]}")
        self._heed_weight(response)
        try:
            return read(answer)
        except (LookupError, TypeError, ValueError) as error:
            raise Later(f"an answer of another form: {response.text[:60]!r}") from error

    def _heed_weight(self, response: httpx.Response) -> None:
        used = response.headers.get(self.weight_header or "", "")
        if used.isdigit() and int(used) >= _SPENT * self.weight_per_minute:
            # Weights are counted by the minute of the venue's clock.
            seconds = response.headers.get("Date", "")[-6:-4]
            self._wait(60.0 - (int(seconds) if seconds.isdigit() else 0))

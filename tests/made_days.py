"""Tiny recorded days: files of a collector, one a day and instrument, a few seconds of an unbroken market each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

from synth_pipeline import stages
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import NS_PER_DAY, Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from tests import wire

FIRST = date.fromisoformat(wire.DAY)


def instrument(symbol: str = "BTCUSDT") -> Instrument:
    return Instrument("binance_usdm", symbol)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@lru_cache(maxsize=1)
def _market(seconds: int) -> list[tuple[int, bytes]]:
    return wire.market(seconds)


def capture(folder: Path, symbol: str, number: int, *, seconds: int = 3) -> Path:
    """Write the recording of one day; another length is other content."""
    frames = [
        (
            at + number * NS_PER_DAY,
            payload.replace(b"BTCUSDT", symbol.encode()).replace(b"btcusdt", symbol.lower().encode()),
        )
        for at, payload in _market(seconds)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    return wire.write_capture(folder / f"{symbol}-{number}.jsonl", frames)


def record(
    settings: Settings, numbers: Sequence[int], symbols: Sequence[str] = ("BTCUSDT",), *, seconds: int = 3
) -> list[Manifest]:
    """Bring the recordings of some days into the store."""
    workspace = Workspace(settings)
    return [
        stages.record(
            workspace,
            instrument(symbol),
            day(number),
            [capture(settings.home / "captures", symbol, number, seconds=seconds)],
        )
        for symbol in symbols
        for number in numbers
    ]


def poison(settings: Settings, number: int, symbol: str = "BTCUSDT") -> None:
    """Damage the raw bytes of a stored day, leaving their size."""
    made = Workspace(settings).require("raw", "record", instrument(symbol), day(number))
    path = Path(str(settings.data / made.ref / made.path("capture")))
    path.write_bytes(bytes(path.stat().st_size))

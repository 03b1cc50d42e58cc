"""What the recorder and ingestion make of injected faults: found, each one; and nothing found where nothing is wrong.

The embedded exchange runs as a process of its own, spoils a simulated market (or serves a clean capture) and says what
it did; the recorder records it over loopback; its raw log is ingested. Every injection is then looked for by its ids or
its time: in the gaps and the quarantine of the ticks, or in the recorder's notes and counters.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from synth_pipeline import plugins, venues
from synth_pipeline.archives import rawlog
from synth_pipeline.capture.figures import Figures
from synth_pipeline.capture.recorder import Plan, Recorder
from synth_pipeline.capture.session import Limits
from synth_pipeline.errors import BadMessage
from synth_pipeline.rng import stream
from synth_pipeline.schema import day_of, day_start_ns
from synth_pipeline.ticks.ingest import ingest_frames
from synth_pipeline.venues import Venue

REAL_DATA = Path(os.environ.get("SYNTH_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
CLEAN = {
    "binance_usdm_btcusdt_20240808.gz": ("binance_usdm", "BTCUSDT"),
    "binance_spot_btcusdt_20240808.gz": ("binance_spot", "BTCUSDT"),
    "binance_coinm_btcusd_perp_20240808.gz": ("binance_coinm", "BTCUSD_PERP"),
}
"""Captures with an opening snapshot and unbroken chains."""
VENUES = ("binance_spot", "binance_coinm", "binance_usdm", "bybit_spot", "bybit_linear", "bybit_inverse")
SYMBOLS = {"binance_coinm": "BTCUSD_PERP", "bybit_inverse": "BTCUSD"}
PATIENT = Limits(backoff_seconds=0.1, clock_seconds=0.25)
IMPATIENT = replace(PATIENT, stall_seconds=1.5, ping_seconds=2.0)
"""To meet a silence in seconds; a starved machine is silent for as long now and then."""
_PACE = "60"
"""Market seconds a second: fast, and slow enough that a book is known again before the next fault hits it."""
_LINE_BYTES = 2**26
_AT_ONCE = 3
"""Runs side by side: each is mostly waiting for its own pace."""


@dataclass
class Recording:
    """One run, seen from all sides."""

    injected: list[dict[str, Any]]
    figures: Figures
    offsets_ns: list[int]
    """Local minus venue clock as estimated, from second to second."""
    notes: list[dict[str, Any]]
    places: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """(first id, receive time) of every message, by stream."""
    gaps: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    flagged: Mapping[str, int] = field(default_factory=dict)
    overtaken: int = 0
    """Book updates that came late and were put back in their place."""

    def noted(self, name: str, text: str = "") -> bool:
        """Whether the recorder wrote a note of this kind with these words."""
        return any(note["event"].endswith(name) and text in note.get("reason", "") for note in self.notes)

    def has_gap_at(self, entry: dict[str, Any]) -> bool:
        """Whether a gap of the stream lies between the last message before the injection and the first behind it."""
        first, last = entry["ids"]
        before = [at for number, at in self.places[entry["stream"]] if number < first]
        behind = [at for number, at in self.places[entry["stream"]] if number > last]
        ours = [gap for gap in self.gaps if gap["stream"] in {entry["stream"], "all"}]
        since, until = max(before, default=0), min(behind, default=2**63)
        return any(gap["start_ns"] <= until and gap["end_ns"] >= since for gap in ours) or not behind

    def refused(self, venue: Venue, entry: dict[str, Any], reason: str) -> bool:
        """Whether the message of an injection lies in the quarantine."""
        rows = (row for row in self.quarantine if row["reason"].startswith(reason))
        return any(_ids(venue, row["payload"]) == entry["ids"] for row in rows)

    def saw_hole(self, entry: dict[str, Any]) -> bool:
        """Whether the recorder noted a hole around the ids of an injection while it recorded."""
        first, last = entry["ids"]
        holes = (note for note in self.notes if note["event"] == "gap" and note["stream"] == entry["stream"])
        return any(hole["last_id"] < first and last < hole["first_id"] for hole in holes)

    def put_all_back(self) -> bool:
        """Whether ingestion counted every update that came late while the book was known."""
        late = [entry for entry in self.injected if (entry["name"], entry["stream"]) == ("reorder", "book_levels")]
        return self.overtaken >= len([entry for entry in late if not self.has_gap_at(entry)])

    def alarms(self) -> dict[str, int]:
        """Return everything that it reports as wrong, by name."""
        figures = self.figures
        counted = (
            "gaps",
            "repeated",
            "garbage",
            "stalls",
            "connect_failures",
            "disconnects",
            "snapshot_failures",
            "refusals",
            "dropped",
        )
        found = {name: int(getattr(figures, name)) for name in (*counted, "clock_steps")}
        found |= {"gap_rows": len(self.gaps), "quarantined": len(self.quarantine), **self.flagged}
        return {name: count for name, count in found.items() if count}


Finder = Callable[[Recording, Venue, dict[str, Any]], bool]
FINDERS: dict[str, Finder] = {
    "drop": lambda run, _, entry: run.has_gap_at(entry),
    "gap": lambda run, _, entry: run.has_gap_at(entry),
    # Where the book is not known, all of it is marked so, and what came twice with it.
    "duplicate": lambda run, venue, entry: run.refused(venue, entry, "duplicate") or run.has_gap_at(entry),
    # What came late is put back in its place and counted; where it cannot be, it is refused or the hole stays.
    "reorder": lambda run, venue, entry: (
        run.saw_hole(entry) or run.refused(venue, entry, "") or run.has_gap_at(entry) or run.put_all_back()
    ),
    "garbage": lambda run, _, entry: entry["bytes"] in {len(row["payload"]) for row in run.quarantine},
    "oversize": lambda run, *_: run.noted("disconnected", "1009"),
    "stall": lambda run, *_: run.noted("disconnected", "stalled"),
    "half_open": lambda run, *_: run.figures.disconnects > 0,
    "session_cut": lambda run, *_: run.noted("disconnected", "1001"),
    # For two minutes the window holds bounds of both clocks, and the estimate lies between them.
    "clock_step": lambda run, _, entry: max(run.offsets_ns) - min(run.offsets_ns) > abs(entry["ms"]) * 250_000,
    "rate_limit": lambda run, *_: run.noted("snapshot_failed", "HTTP 429"),
    "stale_snapshot": lambda run, *_: run.noted("snapshot_failed", "older"),
    "tls_refusal": lambda run, *_: run.noted("connect_failed", "InvalidMessage"),
}


def _ids(venue: Venue, payload: bytes) -> list[int]:
    try:
        messages = venue.parse(payload, 0)
    except BadMessage:
        return []
    ids = [getattr(each, name, None) for each in messages for name in ("first_id", "last_id", "trade_id", "update_id")]
    known = [value for value in ids if value is not None]
    return [min(known), max(known)] if known else []


async def _record(venue: str, symbol: str, words: Sequence[str], folder: Path) -> Recording:
    """Serve, record until all is sent, and read what was written."""
    command = [sys.executable, "-m", "synth_pipeline", "exchange", "--venue", venue, *words, "--port", "0", "--json"]
    exchange = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES)
    assert exchange.stdout is not None
    ready = json.loads(await exchange.stdout.readline())
    silent = any(word.startswith(("stall", "half_open")) for word in words)
    plan = Plan.of(venue, [symbol], folder / "raw", urls=ready["urls"][venue])
    recorder = Recorder(plan, rng=stream(0, "faults"), limits=IMPATIENT if silent else PATIENT)

    async def until_sent(pipe: asyncio.StreamReader) -> list[dict[str, Any]]:
        done = json.loads(await pipe.readline())
        await asyncio.sleep(0.5)
        recorder.stop("all is sent")
        return list(done["injected"])

    ending = asyncio.create_task(until_sent(exchange.stdout))
    offsets: list[int] = []
    figures = await recorder.run(120.0, lambda now: offsets.append(now.offset_ns or 0))
    injected = await ending
    exchange.terminate()
    await exchange.wait()
    return _read(venue, symbol, folder, Recording(injected, figures, offsets[1:] or [0], []))


def _read(name: str, symbol: str, folder: Path, run: Recording) -> Recording:
    """Read the raw log, of however many hours, and its ticks."""
    venue: Venue = plugins.load(venues, name)()
    log, place = folder / "all.rawlog", folder / "ticks"
    place.mkdir()
    with rawlog.Writer(log) as writer:
        for path in sorted((folder / "raw").rglob("*.rawlog")):
            for record in rawlog.read(path):
                writer.append(record)
                if record.kind == rawlog.Kind.EVENT:
                    run.notes.append(json.loads(record.payload))
                    continue
                try:
                    head = venue.head(record.payload)
                except BadMessage:
                    continue
                if not head.snapshot:
                    run.places.setdefault(head.stream, []).append((head.first_id, record.received_ns))
                last_ns = record.received_ns
    ticks = ingest_frames(log, venue, symbol, day_start_ns(day_of(last_ns)), lambda: None, place)
    run.gaps = pq.read_table(ticks.files["gaps"]).to_pylist()
    run.quarantine = pq.read_table(ticks.files["quarantine"]).to_pylist()
    run.flagged = {flag: count for flag, count in ticks.counts["flagged"].items() if flag == "bad_clock"}
    run.overtaken = ticks.counts["book_events"].get("overtaken", 0)
    return run


async def record(venue: str, words: Sequence[str], symbol: str | None = None) -> Recording:
    """Record what the exchange serves when it is started with these words."""
    with tempfile.TemporaryDirectory() as folder:
        return await _record(venue, symbol or SYMBOLS.get(venue, "BTCUSDT"), words, Path(folder))


async def _side_by_side(runs: Iterable[Awaitable[Recording]]) -> list[Recording]:
    places = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(run: Awaitable[Recording]) -> Recording:
        async with places:
            return await run

    return await asyncio.gather(*(in_turn(run) for run in runs))


def _simulated(venue: str, seconds: float, speed: str, faults: Sequence[str]) -> list[str]:
    words = ["--source", "simulated", "--symbols", SYMBOLS.get(venue, "BTCUSDT")]
    words += ["--seconds", str(seconds), "--speed", speed]
    return words + [word for fault in faults for word in ("--fault", fault)]


def _chained(few: int, runs: int) -> list[str]:
    return [f"drop:count={few},share=0.005", f"gap:count={runs},share=0.002", f"reorder:count={few},share=0.005"]


def _scenarios(*, quick: bool) -> list[tuple[str, list[str]]]:
    """Return (venue, words) of every run; faults that do not hide each other share one."""
    few, runs = (4, 2) if quick else (12, 6)
    chained = _chained(few, runs)
    doubles = [f"duplicate:count={few},share=0.005", f"garbage:count={few},share=0.005"]
    length = 420 if quick else 1200
    found = [("binance_usdm", _simulated("binance_usdm", length, _PACE, [*chained, *doubles]))]
    for faults in (
        ["half_open"],
        ["stall:seconds=6"],
        ["session_cut:after=900", "oversize:after=1500"],
        ["tls_refusal", "rate_limit:path=depth", "stale_snapshot"],
    ):
        found.append(("binance_usdm", _simulated("binance_usdm", 150, _PACE, faults)))
    found.append(("binance_usdm", _simulated("binance_usdm", 7, "1", ["clock_step:after=40,ms=2500"])))
    if quick:
        return found
    found.append(("binance_coinm", _simulated("binance_coinm", length, _PACE, [*chained, *doubles])))
    # A snapshot of spot costs a twelfth of what the recorder allows itself a minute, so fewer holes are mended in one.
    found.append(("binance_spot", _simulated("binance_spot", length, _PACE, [*_chained(4, 2), *doubles])))
    for venue in VENUES[3:]:
        # Trade ids of Bybit do not count up: a trade that is missing leaves no trace on the wire.
        spoiled = [f"{fault},stream=book_levels,after=20" for fault in chained]
        found.append((venue, _simulated(venue, length, _PACE, [*spoiled, *doubles])))
    return found


def _clean(*, quick: bool) -> dict[str, tuple[str, list[str], str | None]]:
    """Return (venue, words, symbol) by name: the real captures that are there, and simulated markets."""
    real = {name: what for name, what in CLEAN.items() if (REAL_DATA / name).exists()}
    some = slice(1 if quick else None)
    found: dict[str, tuple[str, list[str], str | None]] = {
        name: (venue, ["--source", str(REAL_DATA / name), "--speed", "max"], symbol)
        for name, (venue, symbol) in list(real.items())[some]
    }
    return found | {f"simulated {venue}": (venue, _simulated(venue, 120, _PACE, []), None) for venue in VENUES[some]}


def faults(quick: bool) -> dict[str, Any]:
    """Return `fault_recall` and `false_alarms`, with what was injected, missed and wrongly reported."""
    spoiled, clean = _scenarios(quick=quick), _clean(quick=quick)
    wanted = [(venue, words, None) for venue, words in spoiled] + list(clean.values())
    runs = asyncio.run(_side_by_side(record(*each) for each in wanted))
    counts: dict[str, list[int]] = {}
    missed: list[dict[str, Any]] = []
    for (name, _), run in zip(spoiled, runs, strict=False):
        venue = plugins.load(venues, name)()
        for entry in run.injected:
            found = FINDERS[entry["name"]](run, venue, entry)
            tally = counts.setdefault(entry["name"], [0, 0])
            tally[0] += found
            tally[1] += 1
            if not found:
                missed.append({"venue": name, **entry})
    injected = sum(total for _, total in counts.values())
    alarms = {name: run.alarms() for name, run in zip(clean, runs[len(spoiled) :], strict=True)}
    return {
        "fault_recall": sum(found for found, _ in counts.values()) / injected,
        "false_alarms": sum(sum(found.values()) for found in alarms.values()),
        "injected": injected,
        "found_of": {name: f"{found}/{total}" for name, (found, total) in sorted(counts.items())},
        "missed": missed,
        "alarms": {name: found for name, found in alarms.items() if found},
        "clean_sources": sorted(alarms),
    }


if __name__ == "__main__":
    print(json.dumps(faults(quick="--quick" in sys.argv), indent=2, default=str))

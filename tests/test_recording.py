"""What the recorder notes and what its clocks do: coverage, gaps, times."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.archives.rawlog import SILENCE_NS, Kind, Record
from synth_pipeline.schema import NS_PER_SECOND, Flag
from synth_pipeline.ticks import clock
from synth_pipeline.ticks import scan_kernels as columns
from tests import naive_ticks, wire
from tests.ingested import Ingested, ingest_day
from tests.wire import START_NS

MS = 1_000_000
Gap = tuple[int, int, str, str, int]


def _note(at: int, name: str, **facts: object) -> Record:
    return Record(START_NS + at, json.dumps({"event": name} | facts).encode(), Kind.EVENT)


def _recording(*notes: Record, seconds: int = 4, without: Iterable[int] = ()) -> Ingested:
    """A small market with notes among its messages, and without those that came in these seconds."""
    frames = [(at, payload) for at, payload in wire.market(seconds) if at // NS_PER_SECOND not in without]
    records = [*(Record(START_NS + at, payload) for at, payload in frames), *notes]
    return ingest_day(sorted(records, key=lambda record: record.received_ns), day_start=START_NS)


def _gaps(day: Ingested) -> list[Gap]:
    """Gaps in ns after the start, but for those that ids tell of."""
    rows = zip(*(day.tables["gaps"][name].tolist() for name in day.tables["gaps"]), strict=True)
    return [(row[0] - START_NS, row[1] - START_NS, *row[2:]) for row in rows if row[3] != "sequence_gap"]


def _coverage(day: Ingested) -> list[tuple[int, int]]:
    return [(start - START_NS, end - START_NS) for start, end in day.ticks.coverage]


def test_notes_for_people_leave_no_trace_but_their_count() -> None:
    notes = [
        _note(0, "start", venue="binance_usdm"),
        _note(1, "connected", connection=1),
        _note(900 * MS, "clock", offset_ns=5, error_ns=1),
        _note(1500 * MS, "gap", stream="trades", last_id=1, first_id=9),
        _note(1600 * MS, "snapshot_failed", reason="429"),
        _note(1700 * MS, "side_disconnected", connection=7),
        _note(9000 * MS, "stop", reason="SIGINT"),
    ]
    day, plain = _recording(*notes), _recording()
    assert day.counts["notes"] == dict.fromkeys(
        ("start", "connected", "clock", "gap", "snapshot_failed", "side_disconnected", "stop"), 1
    )
    assert _gaps(day) == []
    assert day.ticks.coverage == plain.ticks.coverage
    assert day.tables["trades"]["price"].tolist() == plain.tables["trades"]["price"].tolist()


@pytest.mark.parametrize("stops", [True, False])
def test_a_recorder_that_starts_again_ends_the_coverage_and_begins_it_anew(stops: bool) -> None:
    notes = [_note(2010 * MS, "stop", reason="SIGTERM")] if stops else []
    day = _recording(_note(0, "start"), *notes, _note(2990 * MS, "start"), without=[2])
    before, after = 1900 * MS + 2, 3000 * MS
    assert _coverage(day) == [(1, before + 1), (after, 3900 * MS + 3)]
    assert _gaps(day) == [(before, after, "all", "not_recording", -1)]


def test_what_the_disk_made_the_recorder_drop_is_a_gap_of_all_streams() -> None:
    day = _recording(_note(2800 * MS, "dropped", messages=60, bytes=9000, since_ns=START_NS + 2000 * MS), without=[2])
    assert _gaps(day) == [(2000 * MS, 2800 * MS, "all", "dropped", 60)]
    assert len(day.ticks.coverage) == 1


def test_a_torn_tail_is_a_gap_from_the_last_message_to_the_first_after() -> None:
    day = _recording(_note(2500 * MS, "torn", bytes=77), _note(2600 * MS, "start"), without=[2])
    ends = (1900 * MS + 2, 3000 * MS)
    assert sorted(_gaps(day)) == [(*ends, "all", "not_recording", -1), (*ends, "all", "torn", -1)]


def test_quotes_are_lost_while_no_connection_is_open() -> None:
    notes = [
        _note(0, "connected", connection=1),
        _note(500 * MS, "connected", connection=2),
        _note(1500 * MS, "disconnected", connection=1, reason="24 h"),
        _note(2000 * MS, "disconnected", connection=2, reason="reset"),
        _note(2700 * MS, "disconnected", connection=2, reason="reset"),
        _note(2900 * MS, "connected", connection=3),
    ]
    day = _recording(*notes, without=[2])
    assert _gaps(day) == [(1900 * MS + 2, 3000 * MS, "quotes", "disconnected", -1)]
    assert len(day.ticks.coverage) == 1


def test_a_rest_answer_does_not_end_the_silence_of_a_lost_connection() -> None:
    answer = Record(START_NS + 2500 * MS, wire.snapshot(5, [("1.0", "1")], []))
    notes = [_note(2000 * MS, "disconnected", connection=0), answer, _note(2900 * MS, "connected", connection=0)]
    assert _gaps(_recording(*notes, without=[2])) == [(1900 * MS + 2, 3000 * MS, "quotes", "disconnected", -1)]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"event":3}',
        b'{"since_ns":"x"}',
        b'{"event":"dropped","since_ns":1e99,"messages":99999999999999999999}',
    ],
)
def test_a_note_that_nobody_understands_harms_nothing(payload: bytes) -> None:
    day = _recording(Record(START_NS + 1500 * MS, payload, Kind.EVENT))
    assert sum(day.counts["notes"].values()) == 1  # type: ignore[attr-defined]
    assert len(day.tables["trades"]["price"]) == len(_recording().tables["trades"]["price"])


def _clocked(walls: dict[int, int], *, monotonic: bool = True) -> Ingested:
    """A market of a minute whose wall clock is off by `walls[at]` from that moment on."""
    records, off = [], 0
    for at, payload in wire.market(60):
        off = next((walls[step] for step in sorted(walls, reverse=True) if at >= step), 0)
        records.append(Record(START_NS + at + off, payload, Kind.MESSAGE, 10**12 + at if monotonic else 0, 1))
    return ingest_day(records, day_start=START_NS)


def test_stamps_that_leap_ahead_for_a_moment_are_flagged_and_timed_by_the_monotonic_clock() -> None:
    day = _clocked({20 * NS_PER_SECOND: 3600 * NS_PER_SECOND, 21 * NS_PER_SECOND: 0})
    clean = _clocked({})
    for name in ("trades", "quotes"):
        assert day.tables[name]["recv_ns"].tolist() == clean.tables[name]["recv_ns"].tolist()
        flagged = (day.tables[name]["flags"] & Flag.BAD_CLOCK) > 0
        seconds = (day.tables[name]["recv_ns"] - START_NS) // NS_PER_SECOND
        assert (flagged == (seconds == 20)).all()
    assert _gaps(day) == []


def test_a_step_ahead_that_stays_is_believed_and_leaves_a_gap() -> None:
    day = _clocked({20 * NS_PER_SECOND: 30 * NS_PER_SECOND})
    times = (day.tables["trades"]["recv_ns"] - START_NS) / NS_PER_SECOND
    flagged = (day.tables["trades"]["flags"] & Flag.BAD_CLOCK) > 0
    assert times[flagged].min() == pytest.approx(20, abs=0.2)
    assert times[flagged].max() == pytest.approx(30, abs=0.2)
    assert times[-1] == pytest.approx(90, abs=0.2)
    assert (np.diff(times) > 0).all()
    ((start, end, stream, reason, _),) = _gaps(day)
    assert (stream, reason) == ("all", "clock_step")
    assert (start / NS_PER_SECOND, end / NS_PER_SECOND) == pytest.approx((30, 60), abs=0.2)


def test_a_long_step_back_does_not_put_an_hour_into_one_moment() -> None:
    day = _clocked({20 * NS_PER_SECOND: -3600 * NS_PER_SECOND})
    clean = _clocked({})
    assert day.tables["trades"]["recv_ns"].tolist() == clean.tables["trades"]["recv_ns"].tolist()
    flagged = (day.tables["trades"]["flags"] & Flag.BAD_CLOCK) > 0
    assert flagged.sum() == 400


def test_without_a_monotonic_clock_a_step_back_holds_the_time_reached() -> None:
    day = _clocked({20 * NS_PER_SECOND: -5 * NS_PER_SECOND}, monotonic=False)
    times = (day.tables["trades"]["recv_ns"] - START_NS) / NS_PER_SECOND
    flagged = (day.tables["trades"]["flags"] & Flag.BAD_CLOCK) > 0
    assert flagged.sum() == 49  # the fiftieth has caught up
    assert np.ptp(times[flagged]) == 0


stamps = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 500, 999, 1500, 4000, 12_000, 70_000]),
        st.sampled_from([0, 0, 0, 0, 1, -2, 5, -100, 3600]),
        st.sampled_from([True, True, True, False]),
    ),
    max_size=25,
)


@settings(max_examples=400)
@given(stamps, st.integers(1, 5))
def test_times_equal_the_slow_twin_and_never_fall(wanted: list[tuple[int, int, bool]], cut: int) -> None:
    now, off, pairs = 10**18, 0, []
    for passed_ms, step, ticks in wanted:
        now, off = now + passed_ms * MS, off + step * NS_PER_SECOND
        pairs.append((now + off, now - 10**17 if ticks else 0))
    records = np.zeros((len(pairs), columns.WIDTH), dtype=np.int64)
    records[:, [columns.RECEIVED, columns.MONOTONIC]] = np.array(pairs).reshape(-1, 2)
    timed = clock.Clock()
    found = [timed.time(part) for part in np.array_split(records, cut)]
    times, flags = (np.concatenate([part[number] for part in found]) for number in (0, 1))
    expected = naive_ticks.times(pairs, clock.STEP_NS, clock.SETTLED_NS, SILENCE_NS)
    assert list(zip(times.tolist(), flags.tolist(), strict=True)) == expected
    assert (np.diff(times) >= 0).all()

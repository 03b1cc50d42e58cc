"""The verb `simulate`: days of ticks that a calibrated order flow makes.

A day is a run of its own, drawn from a stream of its date. It opens with the orders that the day before left, where
that was simulated and is stored, and then goes on with its ids and its fundamental path; else with the book of the
flow's record, moved to the start price where one is given. What a flow remembers of the last seconds (excitation)
begins anew at midnight. So a day depends on the manifests that its own names, not on what else was made in one go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synth_pipeline import plugins, schema
from synth_pipeline.errors import InputError
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.market import flows
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument, day_start_ns
from synth_pipeline.stages.calibrate import checkpoint_name, sources_of
from synth_pipeline.stages.paths import PathRef, market_pieces
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

if TYPE_CHECKING:
    from synth_pipeline.market.flows.calibrated import Calibrated
    from synth_pipeline.market.fundamental import Fundamental, Tracking
    from synth_pipeline.market.rows import Close, Tables, TickRows
    from synth_pipeline.ticks.parquet import TableWriter

SIMULATED = "simulated"
"""The venue of all simulated days."""
_RUN_SOURCES = (
    "market/rows.py",
    "market/recording.py",
    "market/fundamental.py",
    "market/scenarios",
    "ticks/parquet.py",
    "stages/paths.py",
)
_MOST_TICKS = 2**52
_TABLES = ("orders", "book_levels", "quotes", "trades", "gaps", "quarantine")


@dataclass(frozen=True)
class Simulation:
    """What to simulate, whichever the day."""

    flow: str
    """A calibrated one as INSTRUMENT/DAY/FLOW, or the name of one that brings its parameters."""
    fundamental: PathRef | None = None
    """The path that the mid follows; None for the flow's own price."""
    scenarios: tuple[str, ...] = ()
    """Each such as `flash_crash:lots=5000,at=10m`; their times count from the start of each day."""
    start_s: float = 0.0
    """Seconds of the day at which it begins."""
    seconds: float = 86_400.0
    """How long it lasts, at most to midnight."""
    capture: bool = False
    """Whether a raw log in the words of Binance USD-M is kept beside the tables, for the exchange to replay."""

    def __post_init__(self) -> None:
        from synth_pipeline.market.scenarios import Scenario

        object.__setattr__(self, "scenarios", tuple(str(Scenario.parse(text)) for text in self.scenarios))
        if not (0 <= self.start_s < 86_400 and 0 < self.seconds < math.inf):
            raise InputError(
                f"{self.seconds:g} s from second {self.start_s:g} of a day are no part of it: begin before 86400, for "
                "more than 0 s"
            )

    def span(self, day: date) -> tuple[int, int]:
        """Return when it begins and ends on a day, ns, [start, end)."""
        midnight = day_start_ns(day)
        start_ns = midnight + round(self.start_s * NS_PER_SECOND)
        return start_ns, min(start_ns + round(self.seconds * NS_PER_SECOND), midnight + NS_PER_DAY)


def simulate_days(
    workspace: Workspace,
    instrument: Instrument,
    days: Sequence[date],
    what: Simulation,
    *,
    start_price: Decimal | None = None,
    fresh: bool = False,
) -> list[Manifest]:
    """Simulate days one after the other; `start_price` and `fresh` are for the first, raises as `simulate`."""
    made = []
    for number, day in enumerate(sorted(days)):
        begins = {"start_price": start_price, "fresh": fresh} if number == 0 else {}
        made.append(simulate(workspace, instrument, day, what, **begins))  # type: ignore[arg-type]
    return made


def simulate(
    workspace: Workspace,
    instrument: Instrument,
    day: date,
    what: Simulation,
    *,
    start_price: Decimal | None = None,
    fresh: bool = False,
) -> Manifest:
    """Run an order flow over a day into tick tables; a stored day before it is gone on from, unless `fresh`.

    A `start_price` begins anew, with the mid there. Raises `InputError` for another venue than `simulated` and for a
    path that ends or does not fit, `NoDataError` for a flow or path that was not made, `SynthError` where the market
    breaks down: then no day is left behind.
    """
    if instrument.venue != SIMULATED:
        raise InputError(
            f"{instrument} is not of venue {SIMULATED}, as all simulated days are: name {SIMULATED}.SYMBOL"
        )
    begins_anew = fresh or start_price is not None
    before = None if begins_anew else _day_before(workspace, instrument, day)
    flow = _flow_of(workspace, what.flow)
    inputs = {before.ref: before.digest} if before else {}
    inputs |= {flow[1].ref: flow[1].digest} if flow[1] else {}
    inputs |= what.fundamental.inputs(workspace) if what.fundamental else {}
    config = asdict(what) | {
        "fundamental": str(what.fundamental) if what.fundamental else None,
        "start_price": None if start_price is None else str(start_price),
    }
    sources = (*sources_of(flow[0]), *_RUN_SOURCES)
    draft = draft_of(workspace, "ticks", f"{instrument}/{day}", inputs, sources, config, seeded=True)
    return materialize(
        workspace, draft, lambda place: _Day(workspace, instrument, day, what, before, start_price, place).built()
    )


def _day_before(workspace: Workspace, instrument: Instrument, day: date) -> Manifest | None:
    """Return yesterday's ticks where they were simulated here."""
    found = workspace.find("ticks", instrument, day - timedelta(days=1))
    return found if found is not None and "close" in found.outputs else None


def _flow_of(workspace: Workspace, text: str) -> tuple[str, Manifest | None]:
    """Return a flow's name, and its checkpoint unless the name is all that is given."""
    parts = text.split("/")
    if len(parts) == 1:
        plugins.load(flows, text)
        return text, None
    if len(parts) != 3:
        raise InputError(f"flow {text!r} is neither a name nor INSTRUMENT/DAY/FLOW, as calibrate's: check it")
    name = parts[2].removeprefix("flow_")
    plugins.load(flows, name)
    cell = Instrument.parse(parts[0]), schema.parse_day(parts[1]), checkpoint_name(name)
    return name, workspace.require("checkpoints", "calibrate", *cell)


def load_flow(workspace: Workspace, text: str) -> Calibrated[Any]:
    """Return a calibrated flow, INSTRUMENT/DAY/FLOW, or by its name the embedded market's, or an example of one.

    Raises `NoDataError` for one that was not calibrated, `InputError` for a name without an example.
    """
    from synth_pipeline.market.calibration import default_flow
    from synth_pipeline.market.parameters import Parameters

    name, checkpoint = _flow_of(workspace, text)
    kind: Any = plugins.load(flows, name)
    if checkpoint is not None:
        flow: Calibrated[Any] = kind.load(workspace.file(checkpoint, "checkpoint"))
        return flow
    if name == "queue_reactive":
        return default_flow(Parameters(), stream(workspace.settings.seed, "default flow"))
    if not hasattr(kind, "example"):
        raise InputError(f"{name} brings no parameters of its own: calibrate it and give INSTRUMENT/DAY/{name}")
    example: Calibrated[Any] = kind.example()
    return example


class _Day:
    """One day on its way into its files."""

    def __init__(
        self,
        workspace: Workspace,
        instrument: Instrument,
        day: date,
        what: Simulation,
        before: Manifest | None,
        start_price: Decimal | None,
        place: Path,
    ) -> None:
        self._workspace, self._what, self._before, self._place = workspace, what, before, place
        self._labels = str(instrument), day.isoformat()
        self._start_ns, self._end_ns = what.span(day)
        flow = load_flow(workspace, what.flow)
        self._scale, self._spread = flow.opening.scale, flow.opening.spread
        self._close = self._closed()
        if before is not None:
            flow = flow.opened_with(self._close.levels)
        elif start_price is not None:
            flow = _moved(flow, start_price)
        self._mid = _mid_of(flow.opening.levels) * float(self._scale.tick_size)
        self._flow, self._is_moved = flow, start_price is not None

    def built(self) -> Built:
        """Simulate, and return files and facts."""
        from synth_pipeline.market.rows import TickRows
        from synth_pipeline.market.scenarios.staging import under
        from synth_pipeline.ticks import quality
        from synth_pipeline.ticks.rowgroups import described
        from synth_pipeline.ticks.store import TABLES

        path = self._path()
        tracking = None if path is None else self._tracking(path[0])
        draws = stream(self._workspace.settings.seed, "simulate", *self._labels)
        staged = under(self._flow, self._what.scenarios)
        run = staged.start(self._start_ns, rng=draws, fundamental=tracking)
        told = TickRows(run, self._close)
        files = {name: self._place / f"{name}.parquet" for name in _TABLES}
        if self._what.capture:
            files["capture"] = self._place / "capture.rawlog"
        rows = self._written(told, tracking, files)
        close = told.close()
        files["close"] = self._keep(close)
        facts = self._facts(told, close) | {"rows": rows} | quality.figures(files, quotes_recorded=True)
        facts["notes"] = [self._opening_note()]
        if path is not None and tracking is not None:
            facts["fundamental"] = path[1] | {"steps": path[1]["passed"] + self._steps(path[0])} | tracking.facts()
            if not tracking.facts()["is_small"]:
                facts["notes"].append("the mid is further from the fundamental price than is small: see `fundamental`")
        return Built(files, facts, rows, {name: described(files[name]) for name in TABLES if name in files})

    def _written(self, told: TickRows, tracking: Tracking | None, files: Mapping[str, Path]) -> dict[str, int]:
        from synth_pipeline.ticks import parquet
        from synth_pipeline.ticks.day import file_metadata

        writers = {name: parquet.TableWriter(files[name], schema.TICK_TABLES[name]) for name in _TABLES}
        with self._recording(files.get("capture")) as keep:
            for piece in told.pieces(self._end_ns):
                for name, columns in piece.items():
                    writers[name].write(columns)
                keep(piece)
                if tracking is not None:
                    quotes = {name: column[piece["quotes"]["seq"] >= 0] for name, column in piece["quotes"].items()}
                    mids = (quotes["bid_price"] + quotes["ask_price"]) / 2
                    tracking.feed(quotes["event_ns"], mids, told.now_ns)
                done, whole = told.now_ns - self._start_ns, self._end_ns - self._start_ns
                self._workspace.progress(done // NS_PER_SECOND, whole // NS_PER_SECOND, "seconds simulated")
        self._tell_outages(told, writers["gaps"])
        metadata = file_metadata([(self._start_ns, self._end_ns)], 0, told.close().update_id)
        return {name: writer.close(self._scale, **metadata) for name, writer in writers.items()}

    @contextmanager
    def _recording(self, path: Path | None) -> Iterator[Callable[[Tables], None]]:
        """Yield what keeps pieces in a raw log, nothing without a path."""
        from synth_pipeline.archives import rawlog
        from synth_pipeline.market.recording import Recorder
        from synth_pipeline.market.wire import Wire

        if path is None:
            yield lambda _: None
            return
        symbol = self._labels[0].partition(".")[2]
        recorder = Recorder(Wire(symbol, self._scale.tick_size, self._scale.lot_size))
        with rawlog.Writer(path) as log:

            def keep(piece: Tables) -> None:
                for received_ns, payload in recorder.messages(piece):
                    log.append(rawlog.Record(received_ns, payload))

            yield keep

    def _tell_outages(self, told: TickRows, writer: TableWriter) -> None:
        outages = [halt for halt in told.outages() if self._start_ns < halt.end_ns and halt.start_ns < self._end_ns]
        if outages:
            columns = {
                "start_ns": np.array([max(halt.start_ns - 1, self._start_ns) for halt in outages]),
                "end_ns": np.array([min(halt.end_ns, self._end_ns) for halt in outages]),
                "stream": np.array(["all"] * len(outages), dtype=object),
                "reason": np.array(["exchange_outage"] * len(outages), dtype=object),
                "missing": np.full(len(outages), -1),
            }
            writer.write(columns)

    def _facts(self, told: TickRows, close: Close) -> dict[str, Any]:
        return {
            "messages": told.events,
            "coverage": [(self._start_ns, self._end_ns)],
            "tick_size": str(self._scale.tick_size),
            "lot_size": str(self._scale.lot_size),
            "quarantined": {},
            "flagged": {},
            "gaps": len(told.outages()),
            "trade_gaps": 0,
            "quotes_from": "stream",
            "opened_from_yesterday": self._goes_on,
            "close": {"order_id": close.order_id, "update_id": close.update_id, "trade_id": close.trade_id},
        }

    @property
    def _goes_on(self) -> bool:
        """Whether it follows the day before without a moment between."""
        is_whole = self._before is not None and self._before.facts["coverage"][-1][1] == self._start_ns
        return is_whole and self._start_ns % NS_PER_DAY == 0

    def _opening_note(self) -> str:
        if self._before is None:
            return "opens with the book of the flow's record" + ", moved to the start price" * self._is_moved
        return f"opens with the orders that {self._before.ref} left; the flow's memory begins anew"

    # What goes on from one day to the next.

    def _closed(self) -> Close:
        """Return how the day before ended. Raises `InputError` where its ticks and lots were others."""
        from synth_pipeline.market.rows import NOTHING, Close
        from synth_pipeline.ticks import parquet

        if self._before is None:
            return NOTHING
        path = self._workspace.file(self._before, "close")
        scale = parquet.read_scale(path)
        if scale != self._scale:
            raise InputError(
                f"{self._before.ref} has ticks of {scale.tick_size} and the flow has {self._scale.tick_size}: "
                "take the flow of that day, or begin afresh"
            )
        rows = parquet.read_table(path, ("order_id", "side", "price", "size"))
        sides = np.where(rows["side"] > 0, 0, 1)
        orders = np.column_stack((rows["order_id"], sides, rows["price"], rows["size"]))
        return Close(orders, **self._before.facts["close"])

    def _keep(self, close: Close) -> Path:
        """Write the orders that rest at the end, in order of priority."""
        from synth_pipeline.market.rows import rows_of_close
        from synth_pipeline.ticks import parquet

        path = self._place / "close.parquet"
        parquet.write_table(path, schema.ORDERS, rows_of_close(close, self._end_ns), self._scale)
        return path

    def _path(self) -> tuple[Fundamental, dict[str, Any]] | None:
        """Return the fundamental price from where yesterday left it, and what is to be known of it tomorrow."""
        from synth_pipeline.market.fundamental import Fundamental

        ref = self._what.fundamental
        if ref is None:
            return None
        told: dict[str, Any] = {"of": str(ref), "began": self._labels[1], "start_price": self._mid, "passed": 0}
        known = (self._before.facts.get("fundamental") if self._before else None) or {}
        if known.get("of") == str(ref):
            told |= {name: known[name] for name in ("began", "start_price")} | {"passed": known["steps"]}
        names = self._workspace.settings.seed, "fundamental", self._labels[0], told["began"], str(ref)
        pieces = market_pieces(self._workspace, ref, rng=stream(*names))
        path = Fundamental(
            pieces,
            self._start_ns,
            told["start_price"],
            name=str(ref),
            path=ref.path,
            asset=ref.asset,
            passed=told["passed"],
            rng=stream(*names, "bridge"),
        )
        if (self._end_ns - self._start_ns) % path.step_ns:
            raise InputError(
                f"{(self._end_ns - self._start_ns) / 1e9:g} s are not a whole number of the steps of {ref}, "
                f"{path.step_ns / 1e9:g} s: simulate a multiple of that"
            )
        return path, told

    def _steps(self, path: Fundamental) -> int:
        return (self._end_ns - self._start_ns) // path.step_ns

    def _tracking(self, path: Fundamental) -> Tracking:
        from synth_pipeline.market.fundamental import Tracking

        return Tracking(path, self._start_ns, float(self._scale.tick_size), self._spread)


def _mid_of(levels: np.ndarray) -> float:
    """Return the mid in ticks of rows (side, price, lots)."""
    is_bid = levels[:, 0] == 0
    return float(levels[is_bid, 1].max() + levels[~is_bid, 1].min()) / 2


def _moved(flow: Calibrated[Any], start_price: Decimal) -> Calibrated[Any]:
    """Return the flow with its opening book around another price; levels that would fall below one tick are left out.

    Raises `InputError` where no bid would be left.
    """
    ticks = start_price / flow.opening.scale.tick_size
    if ticks > _MOST_TICKS:
        raise InputError(
            f"start price {start_price} is more than 2^52 ticks of {flow.opening.scale.tick_size}: give less"
        )
    levels = flow.opening.levels.copy()
    levels[:, 1] += round(float(ticks) - _mid_of(levels))
    levels = levels[levels[:, 1] > 0]
    if not (levels[:, 0] == 0).any():
        raise InputError(f"start price {start_price} is below the flow's depth of bids: give a higher one")
    return flow.opened_with(levels, unit=flow.opening.unit)


def days_of(text: str) -> Iterator[date]:
    """Yield the days of `2024-08-08` or `2024-08-08:2024-08-10`. Raises `InputError` for any other form."""
    first, colon, last = text.partition(":")
    start, end = schema.parse_day(first), schema.parse_day(last if colon else first)
    if end < start:
        raise InputError(f"days {text} end before they begin: give the earlier one first")
    yield from (start + timedelta(days=number) for number in range((end - start).days + 1))

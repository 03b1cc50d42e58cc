"""The verbs over whole days: midnight without a seam, nothing redone without a reason, no half partition."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline import plugins, stages
from synth_pipeline.archives.collector import Collector
from synth_pipeline.archives.rawlog import Record
from synth_pipeline.capture import importing
from synth_pipeline.errors import InputError, NoDataError, UnknownNameError
from synth_pipeline.features.grid import grid_features
from synth_pipeline.lineage import manifests
from synth_pipeline.schema import GRID, NS_PER_DAY, NS_PER_SECOND, Instrument, day_start_ns
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks import book, parquet
from tests import wire
from tests.ingested import ingest_day

BTC = Instrument("binance_usdm", "BTCUSDT")
TODAY, TOMORROW = date(2023, 11, 15), date(2023, 11, 16)


def _over_midnight(path: Path, seconds: int = 40) -> Path:
    """A recording of which half lies on either side of midnight."""
    shift = NS_PER_DAY - seconds // 2 * NS_PER_SECOND
    return wire.write_capture(path, [(offset + shift, payload) for offset, payload in wire.market(seconds)])


def _features(workspace: Workspace, instrument: Instrument, sources: list[Path]) -> list[dict[str, np.ndarray]]:
    tables = []
    for day in importing.days_of(sources):
        stages.record(workspace, instrument, day, sources)
        stages.ingest(workspace, instrument, day)
        made = stages.featurize(workspace, instrument, day)
        tables.append(parquet.read_table(made.file(workspace.folder("features", instrument, day), "features")))
    return tables


def _one_pass(sources: list[Path], instrument: Instrument, step_ns: int) -> dict[str, np.ndarray]:
    """The same grid, from one ingestion that knows no midnight."""
    lines = importing.chained(importing.in_order(sources))
    records = [Record(line.received_ns or 0, line.payload) for line in lines]
    made = ingest_day(records, instrument.venue, instrument.symbol)
    ticks, tables = made.ticks, made.tables
    gaps = tables["gaps"]
    return grid_features(
        tables["quotes"],
        tables["trades"],
        book.depth_of(book.replay(tables["book_levels"]), visible_levels=0),
        list(zip(gaps["stream"].tolist(), gaps["start_ns"].tolist(), gaps["end_ns"].tolist(), strict=True)),
        ticks.coverage,
        ticks.scale,
        step_ns=step_ns,
        start_ns=0,
        end_ns=2**62,
        ladder=book.ladder_of(book.replay(tables["book_levels"]), visible_levels=0),
    )


def _assert_same_grid(days: list[dict[str, np.ndarray]], whole: dict[str, np.ndarray]) -> None:
    for name in GRID.names:
        joined = np.concatenate([day[name] for day in days])
        # Lots of two days may differ in size, so that sums of them are equal up to the last bit of a float only.
        np.testing.assert_allclose(joined, whole[name], rtol=1e-12, atol=1e-12, err_msg=name)


def test_two_days_are_one_grid(workspace: Workspace, tmp_path: Path) -> None:
    path = _over_midnight(tmp_path / "capture.gz")
    days = _features(workspace, BTC, [path])
    assert [len(day["label_ns"]) for day in days] == [40, 40]
    assert days[1]["label_ns"][0] - days[0]["label_ns"][-1] == workspace.settings.step_ns
    _assert_same_grid(days, _one_pass([path], BTC, workspace.settings.step_ns))


def test_two_days_are_one_grid_when_the_quotes_come_from_the_book(workspace: Workspace, tmp_path: Path) -> None:
    whole = gzip.decompress(_over_midnight(tmp_path / "all.gz").read_bytes()).splitlines(keepends=True)
    path = tmp_path / "capture.gz"
    path.write_bytes(gzip.compress(b"".join(line for line in whole if b"bookTicker" not in line)))
    _assert_same_grid(_features(workspace, BTC, [path]), _one_pass([path], BTC, workspace.settings.step_ns))


@pytest.mark.parametrize(
    ("names", "instrument"),
    [
        (("binance_spot_btcusdt_20240808.gz", "binance_spot_btcusdt_20240809.gz"), "binance_spot.BTCUSDT"),
        (
            ("binance_coinm_btcusd_perp_20240808.gz", "binance_coinm_btcusd_perp_20240809.gz"),
            "binance_coinm.BTCUSD_PERP",
        ),
    ],
)
def test_real_captures_over_midnight_are_one_grid(
    workspace: Workspace, real: Callable[[str], Path], names: tuple[str, ...], instrument: str
) -> None:
    sources = [real(name) for name in names]
    days = _features(workspace, Instrument.parse(instrument), sources)
    _assert_same_grid(days, _one_pass(sources, Instrument.parse(instrument), workspace.settings.step_ns))
    assert np.isfinite(np.concatenate([day["imbalance_10"] for day in days])[2:-1]).all()


def test_the_second_day_can_be_ingested_first(workspace: Workspace, tmp_path: Path) -> None:
    path = _over_midnight(tmp_path / "capture.gz")
    for day in (TODAY, TOMORROW):
        stages.record(workspace, BTC, day, [path])
    second = stages.ingest(workspace, BTC, TOMORROW)
    assert second.facts["opened_from_yesterday"]
    assert stages.ingest(workspace, BTC, TODAY).skipped
    assert second.inputs[f"ticks/binance_usdm/BTCUSDT/{TODAY}"] == stages.ingest(workspace, BTC, TODAY).digest


def test_a_day_of_a_recording_can_be_read_alone(workspace: Workspace, tmp_path: Path) -> None:
    path = _over_midnight(tmp_path / "capture.gz")
    for day in (TODAY, TOMORROW):
        stages.record(workspace, BTC, day, [path])
    made = stages.ingest(workspace, BTC, TOMORROW)
    levels = parquet.read_table(made.file(workspace.folder("ticks", BTC, TOMORROW), "book_levels"))
    rebuilt = book.replay(levels)
    assert rebuilt.recv_ns[0] == day_start_ns(TOMORROW)
    assert rebuilt.crossed == 0


def test_unchanged_partitions_are_skipped_and_a_changed_input_remakes_what_depends_on_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    path = _over_midnight(tmp_path / "capture.gz")
    _features(workspace, BTC, [path])
    for day in (TODAY, TOMORROW):
        for verb in (stages.ingest, stages.featurize):
            assert verb(workspace, BTC, day).skipped
        assert stages.record(workspace, BTC, day, [path]).skipped
    content = gzip.decompress(path.read_bytes()).replace(b'"0.250"', b'"0.500"', 3)
    path.write_bytes(gzip.compress(content))
    made = {day: stages.record(workspace, BTC, day, [path]) for day in (TODAY, TOMORROW)}
    assert not any(manifest.skipped for manifest in made.values())
    # The edit lies in the first day; the second day's raw log has the same bytes as before.
    assert not stages.ingest(workspace, BTC, TODAY).skipped
    assert not stages.featurize(workspace, BTC, TODAY).skipped


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    path = _over_midnight(tmp_path / "capture.gz")
    digests = []
    for name in ("one", "two"):
        from synth_pipeline.settings import Settings

        workspace = Workspace.of(Settings(home=tmp_path / name, tracking=False))
        _features(workspace, BTC, [path])
        found = [manifests.load(workspace.folder(stage, BTC, TODAY)) for stage in ("raw", "ticks", "features")]  # type: ignore[arg-type]
        digests.append([manifest.digest for manifest in found if manifest])
    assert digests[0] == digests[1]


def test_a_failing_ingest_leaves_what_was_there(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _over_midnight(tmp_path / "capture.gz")
    _features(workspace, BTC, [path])
    folder = workspace.folder("ticks", BTC, TODAY)
    before = (folder / manifests.NAME).read_bytes()
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"0.250"', b'"0.500"', 3)))
    stages.record(workspace, BTC, TODAY, [path])
    calls = iter(range(100))

    def full(*args: object, **kwargs: object) -> int:
        if next(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)  # type: ignore[arg-type]

    write = parquet.TableWriter.close
    monkeypatch.setattr(parquet.TableWriter, "close", full)
    with pytest.raises(Exception, match="No space left"):
        stages.ingest(workspace, BTC, TODAY)
    assert (folder / manifests.NAME).read_bytes() == before
    assert manifests.verify(folder) == []
    assert not [entry for entry in folder.parent.iterdir() if entry.name.startswith(".staging")]


def test_verbs_out_of_order_say_which_comes_first(workspace: Workspace) -> None:
    with pytest.raises(NoDataError, match=r"no raw of binance_usdm.BTCUSDT/2023-11-15: record it first"):
        stages.ingest(workspace, BTC, TODAY)
    with pytest.raises(NoDataError, match="ingest it first"):
        stages.featurize(workspace, BTC, TODAY)
    with pytest.raises(NoDataError, match="featurize it first"):
        stages.fit(workspace, BTC, TODAY, "self_exciting_jump_diffusion")
    with pytest.raises(NoDataError, match="fit it first"):
        stages.sample(workspace, BTC, TODAY, "wgan_gp")


def test_a_day_without_data_is_named_with_the_days_there_are(workspace: Workspace, tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture", wire.market(2))
    with pytest.raises(NoDataError, match=r"no message on 2020-01-01; the days are 2023-11-15"):
        stages.record(workspace, BTC, date(2020, 1, 1), [path])
    assert not workspace.folder("raw", BTC, date(2020, 1, 1)).exists()


def test_files_are_identified_or_contradict(tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture", wire.market(2))
    assert stages.identify([path], None, None) == BTC
    assert stages.identify([path], "binance_usdm", "btcusdt") == BTC
    with pytest.raises(UnknownNameError, match=r"unknown venue 'binance_usdmm'.*Did you mean 'binance_usdm'"):
        stages.identify([path], "binance_usdmm", None)
    both = wire.write_capture(tmp_path / "both", [*wire.market(2), (9, wire.depth(1, 2, 0, symbol="ETHUSDT"))])
    with pytest.raises(InputError, match="holds BTCUSDT, ETHUSDT: pass the one you mean with --symbol"):
        stages.identify([both], None, None)


def test_simulated_days_differ_by_day_and_seed_and_repeat(workspace: Workspace) -> None:
    instrument = Instrument("simulated", "BTCUSDT")
    first = stages.record(workspace, instrument, TODAY, seconds=5)
    assert stages.record(workspace, instrument, TODAY, seconds=5).skipped
    assert stages.record(workspace, instrument, TOMORROW, seconds=5).digest != first.digest
    assert not stages.record(workspace, instrument, TODAY, seconds=6).skipped


def test_a_manifest_is_plain_json_that_names_every_file(workspace: Workspace, tmp_path: Path) -> None:
    _features(workspace, BTC, [_over_midnight(tmp_path / "capture.gz")])
    folder = workspace.folder("ticks", BTC, TODAY)
    document = json.loads((folder / manifests.NAME).read_text())
    named = {artifact["path"] for artifact in document["outputs"].values()}
    assert named == {path.name for path in folder.iterdir() if path.name != manifests.NAME}
    assert document["facts"]["rows"]["trades"] == document["outputs"]["trades"]["rows"]


@pytest.mark.parametrize("lines", [0, 3])
def test_collector_lines_survive_the_raw_store(workspace: Workspace, tmp_path: Path, lines: int) -> None:
    path = wire.write_capture(tmp_path / "capture.gz", wire.market(3)[lines:])
    made = stages.record(workspace, BTC, TODAY, [path])
    from synth_pipeline.archives import rawlog

    log = made.file(workspace.folder("raw", BTC, TODAY), "capture")
    assert [(r.received_ns, r.payload) for r in rawlog.read(log)] == [line[:2] for line in Collector().lines(path)]


def test_coverage_that_grows_over_midnight_reaches_the_features(workspace: Workspace, tmp_path: Path) -> None:
    whole = gzip.decompress(_over_midnight(tmp_path / "all.gz").read_bytes()).splitlines(keepends=True)
    border = next(at for at, line in enumerate(whole) if int(line[:19]) >= day_start_ns(TOMORROW))
    first, second = tmp_path / "first.gz", tmp_path / "second.gz"
    first.write_bytes(gzip.compress(b"".join(whole[:border])))
    second.write_bytes(gzip.compress(b"".join(whole[border:])))
    assert np.isnan(_features(workspace, BTC, [first])[0]["mid"][-1])
    assert np.isfinite(_features(workspace, BTC, [first, second])[0]["mid"][-1])


def test_two_files_of_one_name_are_two_inputs(workspace: Workspace, tmp_path: Path) -> None:
    frames = wire.market(4)
    for folder, part in (("x", frames[:60]), ("y", frames[60:])):
        (tmp_path / folder).mkdir()
        wire.write_capture(tmp_path / folder / "c.log", part)
    made = stages.record(workspace, BTC, TODAY, [tmp_path / "x" / "c.log", tmp_path / "y" / "c.log"])
    assert len(made.inputs) == 2
    assert made.facts["messages"] == len(frames)


def test_a_pair_of_lobster_files_is_kept_whole(workspace: Workspace, tmp_path: Path) -> None:
    from tests.test_lobster import BOOKS, DAY, MESSAGES, NAME

    for kind, content in (("message", MESSAGES), ("orderbook", BOOKS)):
        (tmp_path / NAME.format(kind)).write_text(content)
    instrument = stages.identify([tmp_path / NAME.format("message")], None, None)
    assert str(instrument) == "nasdaq.TEST"
    made = stages.record(workspace, instrument, DAY, [tmp_path / NAME.format("message")])
    assert len(made.inputs) == 2
    assert stages.record(workspace, instrument, DAY, sorted(tmp_path.glob("*.csv"))).skipped
    assert stages.ingest(workspace, instrument, DAY).facts["rows"]["trades"] == 2


def test_features_of_another_step_are_not_mixed_in(workspace: Workspace, tmp_path: Path) -> None:
    from dataclasses import replace

    _features(workspace, BTC, [wire.write_capture(tmp_path / "capture", wire.market(60))])
    slower = replace(workspace, settings=workspace.settings.model_copy(update={"step_ms": 1000}))
    with pytest.raises(InputError, match="have steps of 500 ms, not SYNTH_STEP_MS=1000: featurize that day again"):
        stages.fit(slower, BTC, TODAY, "self_exciting_jump_diffusion")


def test_a_raw_file_that_is_gone_is_named(workspace: Workspace, tmp_path: Path) -> None:
    made = stages.record(workspace, BTC, TODAY, [wire.write_capture(tmp_path / "capture", wire.market(5))])
    made.file(workspace.folder("raw", BTC, TODAY), "capture").unlink()
    with pytest.raises(NoDataError, match=r"capture-.*rawlog, a file of the raw .* is missing or cut short: record it"):
        stages.ingest(workspace, BTC, TODAY)


@pytest.mark.parametrize("text", ["abc", "-5", "0"])
def test_parameters_that_do_not_fit_are_refused(text: str) -> None:
    from synth_pipeline import generators

    kind = plugins.load(generators, "self_exciting_jump_diffusion")
    with pytest.raises(InputError, match=r"parameter most_returns=.* does not fit"):
        kind.from_settings({"most_returns": text if text == "abc" else int(text)})


def test_symbols_are_kept_in_capitals() -> None:
    assert Instrument.parse("simulated.btcusdt") == Instrument("simulated", "BTCUSDT")
    with pytest.raises(InputError, match="is not of the form"):
        Instrument("simulated", "../etc")


def test_a_capture_without_trades_names_what_a_generator_misses(workspace: Workspace, tmp_path: Path) -> None:
    day = date(2023, 11, 15)
    frames = [(at, payload) for at, payload in wire.market(30) if b"trade" not in payload.lower()]
    stages.record(workspace, BTC, day, [wire.write_capture(tmp_path / "quotes.gz", frames)])
    stages.ingest(workspace, BTC, day)
    assert stages.featurize(workspace, BTC, day).facts["known_mid"] > 0
    with pytest.raises(NoDataError, match=r"has no volume on .*: the capture lacks the stream"):
        stages.fit(workspace, BTC, day, "geometric_brownian_motion")

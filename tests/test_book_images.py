"""Pictures of the book: read off the ticks at every label, learnt, and turned back into ladders that can stand."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch

from synth_pipeline import stages
from synth_pipeline.errors import NoDataError
from synth_pipeline.features import book_image
from synth_pipeline.generators.book_dcgan import BookGAN, Pictures, places
from synth_pipeline.rng import stream
from synth_pipeline.schema import Instrument, Scale
from synth_pipeline.series import FloatArray, Series
from synth_pipeline.stages import Workspace
from synth_pipeline.stages.history import History
from synth_pipeline.ticks import parquet
from tests import made_days
from tests import naive_generators as naive

BTC, DAY = made_days.instrument(), made_days.day(0)
QUICK = {"steps": 3, "channels": 4, "noise": 8}


def with_book(steps: int) -> Series:
    """A market with a ladder: sizes that fade with depth and, on the bid's side, go with the imbalance."""
    market, rng = naive.market(steps), stream(0, "ladder")
    columns = {name: market.column(name)[0] for name in ("mid", "spread", "volume")}
    for name in book_image.NAMES:
        level = int(name[-1])
        draw = rng.standard_normal(steps)
        lots = np.rint(np.exp(4 - 0.3 * level + draw + (market.column("imbalance_1")[0] if "bid" in name else 0)))
        columns[name] = np.maximum(lots, 1) * 0.001 if "_size_" in name else 0.1 * (1 + rng.poisson(1.0, steps))
    names = tuple(name for name in BookGAN.columns if name in columns)
    values = np.stack([columns[name] for name in names], axis=1)[np.newaxis]
    return Series(values, names, market.step_ns, market.start_ns, 0.1, 0.001)


def assert_stands(series: Series) -> None:
    """Sizes of a lot or more, on the lot grid; prices positive, on the tick grid, in order from the far bid to the far
    ask."""
    columns = {name: series.column(name) for name in series.names}
    sizes = np.stack([columns[name] for name in book_image.NAMES if "_size_" in name])
    assert (sizes >= series.lot_size * (1 - 1e-9)).all()
    np.testing.assert_allclose(sizes / series.lot_size, np.rint(sizes / series.lot_size), atol=1e-6)
    bids, asks = book_image.ladder_prices(columns)
    ladder = np.concatenate((bids[..., ::-1], asks), axis=-1)
    assert (ladder > 0).all()
    np.testing.assert_allclose(ladder / series.tick_size, np.rint(ladder / series.tick_size), atol=1e-4)
    assert (np.diff(np.rint(ladder / series.tick_size), axis=-1) >= 1).all()


@pytest.mark.parametrize("steps", [1, 12])
def test_what_is_painted_is_a_book_that_can_stand(steps: int, tmp_path: Path) -> None:
    series = with_book(400)
    made = BookGAN.from_settings({**QUICK, "steps": steps}).fit(series, rng=stream(0, "fit"))
    sample = made.sample(40, 24, rng=stream(0, "sample"))
    assert set(sample.names) == set(series.names)
    assert_stands(series)
    assert_stands(sample)
    made.save(tmp_path)
    again = BookGAN.load(tmp_path).sample(40, 24, rng=stream(0, "sample"))
    np.testing.assert_array_equal(again.values, sample.values)
    for name in ("bid_size_1", "ask_size_5", "bid_gap_2", "spread"):
        ratio = np.log(sample.column(name)).mean() - np.log(series.column(name)).mean()
        assert abs(ratio) < 0.5, name


def test_columns_and_pictures_are_the_same_thing() -> None:
    names = tuple(with_book(30).names)
    at = places(names)
    assert len(set(at)) == len(names) == 21
    assert {plane for plane, level in at if level} == {0, 1, 2, 3}
    pictures = Pictures(BookGAN.from_settings(QUICK).parameters, at, 0.0)
    windows = torch.randn(5, 24, 21)
    painted = pictures.picture(windows)
    assert painted.shape == (5, 5, 5, 24)
    torch.testing.assert_close(painted[:, pictures.at[0], pictures.at[1]].mT, windows)
    assert float(painted.abs().sum()) == pytest.approx(float(windows.abs().sum()), rel=1e-5)
    assert places(("close", "volume")) == [(0, 0), (1, 0)]


def ladder_at(levels: dict[str, FloatArray], label_ns: int) -> list[tuple[list[int], list[int]]] | None:
    """The slow way: walk all changes before a label, in a dictionary a side."""
    sides: list[dict[int, int]] = [{}, {}]
    flags, seen = levels["flags"].astype(int), False
    stop = int(np.searchsorted(levels["recv_ns"], label_ns))
    while stop and not flags[stop - 1] & 1:
        stop -= 1
    for row in range(stop):
        if flags[row] & 2 and (row == 0 or not flags[row - 1] & 2):
            sides = [{}, {}]
        side = 0 if levels["side"][row] > 0 else 1
        price, size = int(levels["price"][row]), int(levels["size"][row])
        sides[side].pop(price, None) if size == 0 else sides[side].update({price: size})
        seen = True
    if not seen or min(map(len, sides)) < 5:
        return None
    best = [sorted(sides[0], reverse=True)[:5], sorted(sides[1])[:5]]
    return [(prices, [sides[at][price] for price in prices]) for at, prices in enumerate(best)]


def test_the_book_at_a_label_is_what_the_changes_before_it_left(workspace: Workspace) -> None:
    market = Instrument("simulated", "BTCUSDT")
    stages.record(workspace, market, DAY, seconds=20)
    made = stages.ingest(workspace, market, DAY)
    stages.featurize(workspace, market, DAY)
    series = History.of(workspace, market, DAY, "book_dcgan").series(BookGAN)
    levels = parquet.read_table(workspace.file(made, "book_levels"))
    scale = parquet.read_scale(workspace.file(made, "book_levels"))
    known = 0
    for step in range(series.steps):
        wanted = ladder_at(levels, int(series.start_ns[0]) + step * series.step_ns)
        row = {name: series.column(name)[0, step] for name in series.names}
        if np.isnan(row["bid_size_1"]):
            continue
        assert wanted is not None
        known += 1
        for (prices, lots), side, sign in zip(wanted, ("bid", "ask"), (-1, 1), strict=True):
            sizes = [row[f"{side}_size_{level}"] for level in range(1, 6)]
            np.testing.assert_allclose(sizes, np.array(lots) * float(scale.lot_size), rtol=1e-12)
            gaps = [row[f"{side}_gap_{level}"] for level in range(2, 6)]
            np.testing.assert_allclose(gaps, sign * np.diff(prices) * float(scale.tick_size), rtol=1e-12)
    assert known > 30


def test_a_label_without_five_levels_is_not_known() -> None:
    price, size = np.arange(10).reshape(2, 5), np.ones((2, 5), dtype=np.int64)
    size[1, 4] = 0
    ladder = {"recv_ns": np.array([10, 20]), "bid_price": -price, "bid_size": size, "ask_price": price + 1}
    ladder["ask_size"] = np.ones((2, 5), dtype=np.int64)
    scale = Scale(Decimal("0.5"), Decimal("0.1"))
    found = book_image.book_columns(ladder, np.array([10, 15, 25]), scale)
    np.testing.assert_array_equal(np.isfinite(found["ask_size_3"]), [False, True, False])
    assert found["bid_gap_2"][1] == 0.5
    thin = {name: each if name == "recv_ns" else each[:, :4] for name, each in ladder.items()}
    assert np.isnan(book_image.book_columns(thin, np.array([15]), scale)["bid_size_1"]).all()


def test_ticks_are_inputs_of_what_is_learnt_from_books(workspace: Workspace) -> None:
    made_days.record(workspace.settings, [0], seconds=20)
    ticks = stages.ingest(workspace, BTC, DAY)
    features = stages.featurize(workspace, BTC, DAY)
    assert History.of(workspace, BTC, DAY, "dcgan").inputs == {features.ref: features.digest}
    assert History.of(workspace, BTC, DAY, "book_dcgan").inputs == {
        features.ref: features.digest,
        ticks.ref: ticks.digest,
    }
    made_days.record(workspace.settings, [0], seconds=21)
    stages.ingest(workspace, BTC, DAY)
    with pytest.raises(NoDataError, match=r"is older than ticks/.*: featurize that day again"):
        History.of(workspace, BTC, DAY, "book_dcgan")

"""Windows: cutting, scaling, what window metrics are given, and data sets that are windows themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError, MetricError
from synth_pipeline.fidelity import proximity
from synth_pipeline.fidelity.comparison import Changes, Cuts
from synth_pipeline.fidelity.evaluate import evaluate
from synth_pipeline.fidelity.metric import window_metric
from synth_pipeline.fidelity.registry import window_metrics
from synth_pipeline.fidelity.windows import Windows, scaled
from synth_pipeline.rng import stream
from synth_pipeline.series import Series


def many(rng, paths, steps, names=("close", "volume")):
    values = np.exp(np.cumsum(0.01 * rng.standard_normal((paths, steps, len(names))), axis=1))
    return Series(values, names, 10**9, np.zeros(paths, dtype=np.int64), 0.0)


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(4, 12), st.integers(1, 4), st.integers(1, 5))
def test_windows_are_the_slices_of_every_path(paths, steps, length, stride):
    series = many(stream(paths, "cut", steps), paths, steps)
    expected = [
        path[start : start + length] for path in series.values for start in range(0, steps - length + 1, stride)
    ]
    np.testing.assert_array_equal(Windows.of(series, length, stride=stride).values, np.stack(expected))


def test_a_window_with_a_gap_is_left_out_and_columns_are_chosen():
    series = many(stream(0, "gap"), 1, 10)
    series.values[0, 4, 1] = np.nan
    assert Windows.of(series, 3).count == 5
    assert Windows.of(series, 3, columns=["close"]).count == 8
    with pytest.raises(InputError, match="cannot be cut into windows of 11"):
        Windows.of(series, 11)


def test_scaling_maps_training_to_the_unit_interval_and_others_by_the_same_map():
    rng = stream(1, "scale")
    train, other = (Windows.of(many(rng, 3, 30), 6) for _ in range(2))
    train.values[:, :, 1] = 7.0
    first, second = scaled(train, other)
    assert first.values[:, :, 0].min() == 0
    assert first.values[:, :, 0].max() == 1
    assert not first.values[:, :, 1].any()
    back = second.values[:, :, 0] * np.ptp(train.values[:, :, 0]) + train.values[:, :, 0].min()
    np.testing.assert_allclose(back, other.values[:, :, 0])


def test_distances_equal_the_plain_formula_and_subsets_look_them_up():
    rng = stream(2, "near")
    train, other = (Windows(rng.standard_normal((n, 5, 2)), ("a", "b")) for n in (30, 20))
    spread = train.values.std(axis=(0, 1))
    apart = (other.values[:, np.newaxis] - train.values) / spread
    expected = np.sqrt((apart**2).mean(axis=(2, 3)))
    np.testing.assert_allclose(proximity.distances(other, train, train), expected, rtol=1e-4)
    rows, columns = np.array([3, 1]), np.array([7, 2, 9])
    np.testing.assert_allclose(
        proximity.distances(other.at(rows), train.at(columns), train), expected[np.ix_(rows, columns)], rtol=1e-4
    )
    own = proximity.distances(train.at(columns), train, train)
    assert [int(np.isinf(row).argmax()) for row in own] == [7, 2, 9]
    assert proximity.nearest(train.at(columns).alone(), train, train).place.tolist() == [7, 2, 9]
    beyond = Windows(1e30 * other.values, other.names)  # too far for single precision: no number, and never near
    assert not np.isfinite(proximity.distances(beyond, train, train)).any()


def test_changes_are_the_same_at_another_price_level():
    series = many(stream(3, "level"), 1, 200)
    higher = Series(series.values * [50.0, 1.0], series.names, 1, series.start_ns, 0.0)
    change = Changes.of(series)
    np.testing.assert_allclose(change(higher).values, change(series).values, atol=1e-12)


def test_long_series_are_cut_into_equally_many_synthetic_and_held_out_windows():
    rng = stream(4, "cuts")
    cuts = Cuts.of(many(rng, 1, 3000), many(rng, 2, 900), many(rng, 1, 1200))
    assert cuts.synthetic.count == cuts.holdout.count <= cuts.train.count // 2
    assert cuts.train.length == 24
    assert "changes of prices" in cuts.told[0]


def test_a_declared_metric_is_found_by_its_file_and_says_what_it_lacks():
    @window_metric(title="T", goal="low", bounds=(0, 1), minimum=5, citation="C", meaning="M")
    def gap(train, synthetic, holdout, *, rng):
        """Say what it measures."""
        return float(abs(synthetic.values.mean() - holdout.values.mean()))

    few, enough = (Windows(np.ones((n, 4, 1)), ("a",)) for n in (4, 5))
    assert gap(enough, enough, enough, rng=stream(0, "metric")) == 0
    with pytest.raises(MetricError, match="gap needs 5 windows, the synthetic sample has 4"):
        gap(enough, few, enough, rng=stream(0, "metric"))
    assert {"coverage", "privacy"} <= {metric.family for metric in window_metrics().values()}


def test_a_data_set_of_windows_is_evaluated_as_it_is():
    rng = stream(5, "set")
    real, made = many(rng, 400, 24), many(rng, 300, 24)
    found = evaluate(real, made, rng=rng, families=["marginal", "coverage", "copying"])
    assert "paths of the real data" in found.sizes.holdout
    assert "values as given" in found.sizes.thinned[-1]
    results = {result.name: result for result in found.results}
    assert results["ks_distance"].verdict == results["coverage"].verdict == "indistinguishable"
    assert results["verbatim_share"].value == 0

"""Fidelity of several assets: dependence against independent libraries, its floors, the record and the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from synth_pipeline.errors import InputError, MetricError
from synth_pipeline.fidelity import dependence
from synth_pipeline.fidelity.bootstrap import resamples
from synth_pipeline.fidelity.evaluate import evaluate
from synth_pipeline.fidelity.evaluation import Evaluation
from synth_pipeline.fidelity.joint import JointSample
from synth_pipeline.fidelity.metric import Metric
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.reports import words
from synth_pipeline.reports.page import render
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_baskets as naive

METRICS = metrics(joint=True)
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def moves(seed: int, steps: int, correlation: float = 0.6, assets: int = 3, freedom: float = 4.0) -> FloatArray:
    """Log-returns of a multivariate Student law."""
    rng = stream(seed, "moves")
    matrix = np.full((assets, assets), correlation) + (1 - correlation) * np.eye(assets)
    joint = rng.multivariate_normal(np.zeros(assets), matrix, steps)
    return np.asarray(1e-3 * joint / np.sqrt(rng.chisquare(freedom, (steps, 1)) / freedom))


def sample(*paths: FloatArray) -> JointSample:
    return JointSample(np.stack(paths))


def series_of(*paths: FloatArray) -> Series:
    each = [naive.closes(path, tick=0.001) for path in paths]
    values = np.concatenate([one.values for one in each])
    return replace(each[0], values=values, start_ns=np.zeros(len(paths), np.int64))


# Statistics against libraries that we did not write, and by counting.


def pearson(path: FloatArray) -> FloatArray:
    return np.asarray(np.corrcoef(path, rowvar=False))[np.triu_indices(3, 1)]


def spearman(path: FloatArray) -> FloatArray:
    return np.asarray(stats.spearmanr(path).statistic)[np.triu_indices(3, 1)]


def test_correlations_equal_those_of_numpy_and_scipy() -> None:
    first, second = moves(0, 600), moves(1, 600, 0.2)

    def expected(one: FloatArray, two: FloatArray) -> object:
        return pytest.approx(float(np.sqrt(np.mean((one - two) ** 2))))

    pair = sample(first), sample(second)
    assert dependence.correlation_error(*pair) == expected(pearson(first), pearson(second))
    assert dependence.rank_correlation_error(*pair) == expected(spearman(first), spearman(second))
    sizes = pearson(np.abs(first)), pearson(np.abs(second))
    assert dependence.volatility_correlation_error(*pair) == expected(*sizes)
    assert dependence.average_correlation(*pair) == expected(pearson(first).mean(), pearson(second).mean())


def test_who_leads_is_seen() -> None:
    leader = moves(2, 5_000, 0.0, 2)
    follows = np.stack((leader[2:, 0], leader[:-2, 0] + leader[2:, 1]), axis=1)
    lagged = [np.corrcoef(follows[:-lag, 0], follows[lag:, 1])[0, 1] for lag in range(1, 6)]
    assert lagged[1] > 0.6
    found = dependence.lead_lag_error(sample(moves(3, 5_000, 0.0, 2)), sample(follows))
    assert found == pytest.approx(lagged[1] / np.sqrt(10), abs=0.03)


def test_tails_are_counted() -> None:
    path = moves(4, 2_000)
    for metric, lower in ((dependence.crash_dependence, True), (dependence.rally_dependence, False)):
        assert metric.level(sample(path), "real") == pytest.approx(naive.together(path, 0.05, lower=lower), abs=1e-9)


# The laws of every metric.


@every_metric
def test_identical_input_scores_best_and_independent_assets_worse(metric: Metric) -> None:
    real = sample(moves(5, 3_000))
    apart = sample(np.stack([moves(seed, 3_000)[:, 0] for seed in (6, 7, 8)], axis=1))
    leading = sample(np.stack([np.roll(real.returns[0, :, asset], asset) for asset in range(3)], axis=1))
    assert metric(real, real) == 0.0
    assert metric(real, leading if metric.name == "lead_lag_error" else apart) > 0.05


@every_metric
def test_order_of_paths_and_scale_of_assets_change_nothing(metric: Metric) -> None:
    paths = [moves(seed, 700) for seed in range(4)]
    real = sample(*paths[:2])
    expected = metric(real, sample(*paths[2:]))
    assert metric(real, sample(*paths[:1:-1])) == pytest.approx(expected)
    assert metric(real, sample(*(path * [1.0, 10.0, 0.1] for path in paths[2:]))) == pytest.approx(expected)


@every_metric
def test_gaps_of_one_asset_are_gaps_of_all_and_change_little(metric: Metric) -> None:
    path = moves(9, 2_000)
    series = series_of(path)
    values = series.values.copy()
    values[0, 100:104, 1], values[0, 900, 2] = np.nan, np.nan
    gappy = JointSample.of(replace(series, values=values))
    assert gappy.counts.tolist() == [2_000 - 5 - 2]
    real = sample(moves(10, 2_000))
    assert metric(real, gappy) == pytest.approx(metric(real, sample(path)), abs=0.03)


@every_metric
def test_too_little_data_and_resting_assets_are_absent_with_a_reason(metric: Metric) -> None:
    long = sample(moves(11, 1_000))
    with pytest.raises(MetricError, match=f"{metric.name} needs {metric.minimum} known returns"):
        metric(long, sample(moves(12, metric.minimum - 1)))
    resting = moves(13, 1_000)
    resting[:, 1] = 0.0
    with pytest.raises(MetricError):
        metric(long, sample(resting))


@every_metric
def test_facts_are_declared(metric: Metric) -> None:
    low, high = metric.bounds
    assert low == 0.0 < high
    assert metric.family == "dependence"
    assert metric.goal == "low"
    assert metric.citation
    assert metric.what.endswith(".")


def test_one_market_has_no_dependence() -> None:
    assert not set(METRICS) & set(metrics())
    assert metrics(["dependence"]) == {}
    assert set(metrics(["dependence"], joint=True)) == set(METRICS)


def test_resamples_keep_rows_whole() -> None:
    real = sample(moves(14, 400), moves(15, 400))
    rows = {row.tobytes() for row in real.returns.reshape(-1, 3)}
    for drawn in resamples(real, (2, 300), 3, 20.0, rng=stream(0, "resamples")):
        assert drawn.shape == (2, 300, 3)
        assert {row.tobytes() for row in drawn.reshape(-1, 3)} <= rows


# The record and the page.


@pytest.fixture(scope="module")
def evaluations() -> dict[str, Evaluation]:
    train, holdout = series_of(moves(20, 1_500)), series_of(moves(21, 700))
    made = {
        "alike": [moves(seed, 700) for seed in (22, 23, 24)],
        "apart": [np.stack([moves(10 * seed + at, 700)[:, 0] for at in range(3)], axis=1) for seed in (30, 31, 32)],
    }
    return {
        kind: evaluate(train, series_of(*paths), holdout, rng=stream(0, "evaluate")) for kind, paths in made.items()
    }


def test_a_fresh_draw_passes_and_assets_that_are_lifelike_alone_fail_together(
    evaluations: dict[str, Evaluation],
) -> None:
    alike = {result.name: result.verdict for result in evaluations["alike"].results}
    apart = {result.name: result.verdict for result in evaluations["apart"].results}
    assert set(METRICS) <= set(alike)
    assert list(alike.values()).count("indistinguishable") >= 6
    assert "off" not in alike.values()
    for name in ("average_correlation", "correlation_error", "rank_correlation_error", "crash_dependence"):
        assert apart[name] == "off", name
    assert all(asset.fidelity_verdict != "off" for asset in evaluations["apart"].assets.values())
    assert evaluations["apart"].conclusion == "off"


def test_the_whole_is_the_mean_of_its_assets_and_its_verdict_the_gravest(evaluations: dict[str, Evaluation]) -> None:
    for whole in evaluations.values():
        assert list(whole.assets) == ["A", "B", "C"]
        assert whole.fidelity == pytest.approx(np.mean([each.fidelity for each in whole.assets.values()]))
        assert whole.floor == pytest.approx(np.mean([each.floor for each in whole.assets.values()]))
        low, high = whole.fidelity_band
        assert low < high
        assert {check.title.partition(":")[0] for check in whole.checks} == {"A", "B", "C"}
    copied = next(iter(evaluations["alike"].assets.values()))
    assert copied.panels is not None


def test_an_asset_is_judged_as_if_it_were_alone(evaluations: dict[str, Evaluation]) -> None:
    train, holdout = series_of(moves(20, 1_500)), series_of(moves(21, 700))
    made = series_of(*[moves(seed, 700) for seed in (22, 23, 24)])
    alone = evaluate(
        train.parts()["B"], made.parts()["B"], holdout.parts()["B"], rng=stream(0, "evaluate"), families=("marginal",)
    )
    together = evaluations["alike"].assets["B"]
    assert together.fidelity == alone.fidelity
    assert together.floor == alone.floor


def test_the_record_is_lossless_and_its_table_names_assets(evaluations: dict[str, Evaluation]) -> None:
    whole = evaluations["alike"]
    assert Evaluation.from_json(whole.to_json()) == whole
    rows = whole.table()
    assert {row.get("asset") for row in rows} == {None, "A", "B", "C"}
    assert set(METRICS) <= {row["name"] for row in rows if "asset" not in row}


def test_different_assets_are_refused() -> None:
    train, holdout = series_of(moves(20, 300)), series_of(moves(21, 300))
    two = train.select(("A:close", "B:close"))
    with pytest.raises(InputError, match="assets differ, A, B, C and A, B: compare series of the same assets"):
        evaluate(train, two, holdout, rng=stream(0, "evaluate"))


def test_the_page_shows_every_asset_and_what_is_between_them(evaluations: dict[str, Evaluation]) -> None:
    page = render(evaluations["apart"], {"instrument": "file.A+B+C", "day": "1h", "generator": "none"})
    for metric in METRICS.values():
        assert metric.title in page.replace("&amp;", "&"), metric.name
    for name in "ABC":
        assert f'id="{name}-prices"' in page
        assert f'id="figure-{name}-histogram"' in page
        assert f'<a href="#{name}-prices">{name}</a>' in page
    ids = [part.partition('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    titles = [finding.title for finding in words.findings(evaluations["apart"])]
    assert titles[0] in {metric.title for metric in METRICS.values()}
    assert words.headline(evaluations["apart"]) == "Not like the real market"

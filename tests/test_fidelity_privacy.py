"""Copies in disguise are exposed, lifelike data are not; coverage and privacy metrics keep their laws."""

import numpy as np
import pytest

from synth_pipeline.fidelity import coverage, privacy
from synth_pipeline.fidelity.copying import near_copy_share
from synth_pipeline.fidelity.evaluate import evaluate
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.rng import stream
from tests.test_fidelity import market, series, stretches

RNG = stream(0, "metric")


def windows(seed, count, scale=1.0, shift=0.0):
    return Windows(shift + scale * stream(seed, "windows").standard_normal((count, 6, 2)), ("a", "b"))


@pytest.fixture(scope="module")
def roles():
    return windows(1, 400), windows(2, 150), windows(3, 150)


def test_real_windows_cover_and_narrow_or_foreign_ones_do_not(roles):
    train, fresh, holdout = roles
    narrow, foreign = windows(4, 150, scale=0.2), windows(5, 150, shift=5.0)
    for metric in (coverage.coverage, coverage.beta_recall, coverage.alpha_precision, coverage.sibling_distance):
        good = metric(train, fresh, holdout, rng=RNG)
        assert good > 0.5
        assert metric(train, narrow, holdout, rng=RNG) < good - 0.1
    assert coverage.coverage(train, foreign, holdout, rng=RNG) == 0
    assert coverage.density(train, foreign, holdout, rng=RNG) == 0
    assert coverage.density(train, fresh, holdout, rng=RNG) == pytest.approx(1.0, abs=0.25)
    assert coverage.diversity(train, fresh, holdout, rng=RNG) == pytest.approx(1.0, abs=0.1)
    assert coverage.diversity(train, narrow, holdout, rng=RNG) == pytest.approx(0.2, abs=0.05)


def test_coverage_equals_its_definition_said_slowly(roles):
    train, fresh, holdout = roles
    unit = train.values.std(axis=(0, 1))
    apart = lambda a, b: np.sqrt((((a - b) / unit) ** 2).mean())  # noqa: E731
    inside = 0
    for own in holdout.values:
        radius = sorted(apart(own, other) for other in holdout.values)[coverage.NEIGHBOURS]
        inside += min(apart(own, made) for made in fresh.values) <= radius
    assert coverage.coverage(train, fresh, holdout, rng=RNG) == pytest.approx(inside / holdout.count, abs=1e-9)


def test_copies_are_near_duplicates_and_new_windows_are_not(roles):
    train, fresh, holdout = roles
    copy = train.at(np.arange(150)).alone()
    noisy = Windows(copy.values + 0.05 * stream(6, "noise").standard_normal(copy.values.shape), copy.names)
    assert privacy.duplicate_share(train, copy, holdout, rng=RNG) == 1
    assert privacy.duplicate_share(train, fresh, holdout, rng=RNG) == 0
    for close in (copy, noisy):
        assert privacy.training_nearness(train, close, holdout, rng=RNG) < 0.1
        assert privacy.neighbour_ratio(train, close, holdout, rng=RNG) < 0.1
        assert privacy.authenticity(train, close, holdout, rng=RNG) == 0
        assert privacy.membership_auc(train, close, holdout, rng=RNG) > 0.65
    assert privacy.training_nearness(train, fresh, holdout, rng=RNG) == pytest.approx(0.93, abs=0.1)
    assert privacy.membership_auc(train, fresh, holdout, rng=RNG) == pytest.approx(0.5, abs=0.08)


def test_near_copies_are_found_through_noise_and_loudness_and_chance_is_not():
    train, other = market(stream(7, "near"), 1, 6000), market(stream(8, "near"), 1, 2000)
    pieces = np.concatenate([train[:, start : start + 100] for start in range(0, 4000, 400)], axis=1)
    noise = 0.05 * train.std() * stream(9, "near").standard_normal(pieces.shape)
    assert near_copy_share(Sample(train), Sample(other)) == 0
    for copies in (pieces, pieces + noise, 1.7 * pieces):
        assert near_copy_share(Sample(train), Sample(copies)) > 0.7


def test_coarse_ticks_do_not_make_near_copies():
    moves = stream(10, "ticks").choice([-2, -1, 0, 1, 2], p=[0.05, 0.25, 0.4, 0.25, 0.05], size=(2, 5000))
    train, other = (Sample.of(series(np.log1p(path / 10_000), tick=0.1)) for path in moves[:, np.newaxis])
    assert near_copy_share(train, other) <= 0.02


@pytest.mark.parametrize("kind", ["windows", "jitter"])
def test_the_grade_of_a_disguised_copy_is_withheld(kind):
    train, holdout = stretches(3000, 999)
    returns, rng = Sample.of(train).returns[0], stream(11, kind)
    pieces = np.concatenate([returns[start : start + 40] for start in rng.integers(0, 2900, 25)])[np.newaxis]
    if kind == "jitter":
        pieces = pieces + 0.05 * returns.std() * rng.standard_normal(pieces.shape)
    found = evaluate(train, series(pieces, tick=0.01), holdout, rng=rng, families=["copying"])
    assert found.grade == "withheld"
    assert {use.permission for use in found.uses} == {"no"}

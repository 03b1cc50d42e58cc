"""Rejection sampling: what is accepted passes, nothing depends on how the work is divided, and every search ends."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.fidelity import copying
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.scoring import Base, Scorer
from synth_pipeline.generators import PIECE, Generator
from synth_pipeline.generators.block_bootstrap import BlockBootstrap
from synth_pipeline.rng import per_path, stream
from synth_pipeline.series import Series
from synth_pipeline.synthesis import candidates, rejection
from synth_pipeline.synthesis.rejection import Tally, accepted

MINUTE_NS = 60 * 10**9
STEPS = 301


@dataclass(frozen=True)
class Parameters:
    wildness: float = 0.3
    assets: int = 1


class Market(Generator):
    """Heavy-tailed returns; every path has a volatility of its own, so that scores differ."""

    Parameters: ClassVar[type] = Parameters
    columns = ("close",)
    conditions = True
    multi_asset = True

    def fit(self, series, *, rng, progress=None):  # noqa: ARG002 - there is nothing to fit
        return self

    def sample(self, n, steps, *, regime=None, rng):
        self.check_request(n, steps, regime)
        values = np.empty((n, steps, self.parameters.assets))
        for path, own in enumerate(per_path(rng, n)):
            level = 0.01 * np.exp(self.parameters.wildness * own.standard_normal(self.parameters.assets))
            level = level * (5 if regime == "wild" else 1)
            values[path] = 100 * np.exp(np.cumsum(level * own.standard_t(4, (steps, self.parameters.assets)), axis=0))
        markets = [
            Series(values[:, :, [k]], ("close",), MINUTE_NS, np.zeros(n, dtype=np.int64), 0.0)
            for k in range(values.shape[2])
        ]
        return markets[0] if len(markets) == 1 else Series.joined({f"A{k}": each for k, each in enumerate(markets)})

    def save(self, folder):
        (folder / "market.json").write_text(json.dumps(asdict(self.parameters)))

    @classmethod
    def load(cls, folder):
        return cls(Parameters(**json.loads((folder / "market.json").read_text())))

    def summary(self):
        return {}


def base_of(generator, steps=STEPS):
    return generator.sample(1, steps, rng=stream(0, "base"))


def search(generator, base=None, **more):
    asked = {"paths": 5, "steps": STEPS, "min_fidelity": 80.0, "rng": stream(1, "candidates")} | more
    return accepted(generator, base_of(generator) if base is None else base, **asked)


def joined(pieces):
    """The paths of a stream, whole."""
    paths = {}
    for number, piece in pieces:
        paths.setdefault(number, []).append(piece.values[0])
    return {number: np.concatenate(values) for number, values in paths.items()}


def outcome(found):
    return found.tally.accepted, found.scores, json.dumps(found.facts())


def test_what_is_accepted_passes_and_is_what_the_generator_streams():
    generator, base = Market(), base_of(Market())
    found = search(generator, base, paths=12)
    scorer = Scorer(Base.of(base, STEPS))
    paths = joined(found.pieces())
    assert list(paths) == list(range(12))
    for number, values in paths.items():
        scorer.add(number, values[:, 0])
    assert tuple(each.score for each in scorer.finish().values()) == found.scores
    assert min(found.scores) >= 80
    every = generator.sample(found.tally.tried, STEPS, rng=stream(1, "candidates"))
    for values, candidate in zip(paths.values(), found.tally.accepted, strict=True):
        assert values.tobytes() == every.values[candidate].tobytes()
    for path in range(found.tally.tried):
        scorer.add(path, every.values[path, :, 0])
    scores = [each.score for each in scorer.finish().values()]
    assert [path for path, score in enumerate(scores) if score >= 80] == found.tally.accepted
    assert scores == found.tally.scores


def test_facts_add_up():
    found = search(Market(), paths=9)
    facts = found.facts()
    assert sum(facts["fidelity_histogram"].values()) == facts["candidates"] == found.tally.accepted[-1] + 1
    passing = sum(count for low, count in facts["fidelity_histogram"].items() if int(low) >= 80)
    assert passing == 9
    assert facts["acceptance_rate"] == 9 / facts["candidates"]
    assert facts["best_fidelity"] == max(found.tally.scores)
    assert facts["mean_fidelity"] == pytest.approx(np.mean(found.scores))
    assert sum(facts["points_lost"].values()) == pytest.approx(100 - np.mean(found.tally.scores))
    assert "fidelity" in facts["selected_on"]
    json.dumps(facts, allow_nan=False)


def test_other_processes_change_nothing(monkeypatch):
    here = search(Market(), paths=40)
    monkeypatch.setattr(candidates, "START_S", 0.0)
    assert outcome(search(Market(), paths=40, workers=2)) == outcome(here)


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(1, 3000), st.integers(1, 8))
def test_the_size_of_tasks_changes_nothing(most, steps, workers):
    here = outcome(search(Market(), paths=6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rejection, "_BATCH", most)
        patch.setattr(rejection, "_BATCH_STEPS", steps)
        patch.setattr(candidates, "START_S", math.inf)
        assert outcome(search(Market(), paths=6, workers=workers)) == here


def test_the_stream_of_randomness_is_left_where_it_was():
    rng = stream(1, "candidates")
    first = search(Market(), rng=rng)
    assert outcome(search(Market(), rng=rng)) == outcome(first)
    assert outcome(search(Market(), rng=stream(2, "candidates"))) != outcome(first)


def test_progress_tells_acceptance_and_the_best_score():
    seen = []
    found = search(Market(), watch=lambda done, total, note="": seen.append((done, total, note)))
    assert [total for _, total, _ in seen] == [5] * (found.tally.tried + 1)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    done, _, note = seen[-1]
    assert done == 5
    assert note == f"{found.tally.tried} candidates, {found.acceptance_rate:.0%} accepted, best {found.best:.1f}"


# ---- thresholds out of reach


def test_a_threshold_out_of_reach_is_an_error_with_histogram_and_advice():
    seen = []
    with pytest.raises(InputError) as caught:
        search(Market(), min_fidelity=99.5, watch=lambda *said: seen.append(said))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("min_fidelity=99.5 is out of reach: 0 of ")
    tried = int(re.search(r" 0 of (\d+) candidates", message)[1])
    assert len(seen) == tried + 1
    assert tried < 1000
    assert sum(map(int, re.findall(r"\d+-\d+: (\d+)", message))) == tried
    assert "1 % reach" in message
    assert "costs most" in message
    assert message.endswith("lower it, allow more candidates or fit another generator")


def test_no_search_scores_more_than_it_may():
    scored = []
    with pytest.raises(InputError, match=r"candidates passed, and 30 of at most 40 are wanted"):
        search(Market(), paths=30, min_fidelity=70, most_candidates=40, watch=lambda *said: scored.append(said))
    assert 10 < len(scored) <= 41


def test_a_hopeless_spread_ends_a_search_early():
    """Scores of 60 ± 4 do not reach 99.5 once in twenty, whatever their law; counting alone needs 135 of them."""
    with pytest.raises(InputError, match=r"0 of 100 candidates passed"):
        search(Market(), min_fidelity=99.5, regime="wild", paths=10, most_candidates=200)


class Drawn(candidates.Candidate):
    """A candidate with this score."""

    def __new__(cls, score, threshold):
        copied = copying.Copied(0, 0, 0, 1) if score >= threshold else None
        return super().__new__(cls, score, np.zeros(12), copied)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0.02, 1.0), st.floats(0.1, 30.0))
def test_a_threshold_within_reach_is_never_given_up(seed, paths, rate, spread):
    """Four times the rate that is needed, so that chance does not explain a failure."""
    from scipy.stats import norm

    rng, tally = stream(seed, "scores"), Tally(paths, 50.0, max(1000, 200 * paths), ("a",) * 12)
    while not tally.is_done:
        score = float(np.clip(50 + spread * (norm.ppf(rate) + rng.standard_normal()), 0, 100)) if rate < 1 else 60.0
        tally.add(Drawn(score, 50.0))
        assert tally.is_done or not tally.is_hopeless


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 2000), st.lists(st.floats(0, 94.9), min_size=1, max_size=5))
def test_without_an_acceptance_every_search_ends(paths, most, scores):
    tally = Tally(paths, 95.0, max(paths, most), ("a",) * 12)
    while not tally.is_hopeless:
        tally.add(Drawn(scores[tally.tried % len(scores)], 95.0))
        assert tally.tried <= tally.most
    assert sum(tally.histogram(10).values()) == tally.tried
    assert tally.refusal()


# ---- what is refused


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"min_fidelity": math.nan}, "min_fidelity=nan is no fidelity"),
        ({"min_fidelity": -1.0}, "min_fidelity=-1 is no fidelity: give a number from 0 to 100"),
        ({"min_fidelity": 100.5}, "min_fidelity=100.5 is no fidelity"),
        ({"paths": 0}, "0 paths of 301 steps are nothing to sample"),
        ({"steps": 100}, "paths of 100 steps cannot be scored"),
        ({"workers": 0}, "0 workers"),
        ({"most_candidates": 4}, "4 candidates are too few for 5 paths"),
        ({"base": base_of(Market(), 80)}, "base series of 79 known returns"),
        ({"base": base_of(Market(Parameters(assets=2)))}, "the base is of A0, A1 every 60 s"),
        ({"base": Series(np.ones((1, 301, 1)), ("close",), MINUTE_NS, np.zeros(1, np.int64), 0.0)}, "never moves"),
        ({"base": Series(np.ones((1, 301, 1)), ("volume",), 1, np.zeros(1, np.int64), 0.0)}, "no price column"),
    ],
)
def test_bad_input_is_told_in_one_line(more, words):
    with pytest.raises(InputError, match=words) as caught:
        search(Market(), **more)
    assert "\n" not in str(caught.value)


def test_a_regime_is_asked_of_the_generator():
    generator = Market()
    wild = generator.sample(1, STEPS, regime="wild", rng=stream(3, "wild"))
    assert search(generator, wild, regime="wild").acceptance_rate > 0.1
    with pytest.raises(InputError, match="out of reach"):
        search(generator, wild)


# ---- several assets, long paths, real blocks


def test_of_several_assets_the_one_that_scores_lowest_counts():
    generator = Market(Parameters(assets=2))
    base = base_of(generator)
    found = search(generator, base, min_fidelity=70.0)
    for number, values in joined(found.pieces()).items():
        scores = []
        for column, (_, part) in enumerate(base.parts().items()):
            scorer = Scorer(Base.of(part, STEPS))
            scorer.add(0, values[:, column])
            scores.append(scorer.finish()[0].score)
        assert found.scores[number] == min(scores) >= 70
    assert found.copied.known == 2 * 5 * (STEPS - 1)


def test_a_path_of_many_pieces_is_scored_as_a_whole():
    generator, steps = Market(), PIECE + 5_000
    found = search(generator, paths=1, steps=steps, min_fidelity=0.0)
    (first, one), (second, two) = found.pieces()
    assert (first, second) == (0, 0)
    assert (one.steps, two.steps) == (PIECE, 5_000)
    whole = generator.sample(1, steps, rng=stream(1, "candidates"))
    scorer = Scorer(Base.of(base_of(generator), steps))
    scorer.add(0, whole.values[0, :, 0])
    assert found.scores == (scorer.finish()[0].score,)


def test_copies_on_a_coarser_grid_are_copies():
    generator, base = Market(), base_of(Market(), 1201)
    ticked = Series(np.round(base.values, 2), base.names, base.step_ns, base.start_ns, 0.01)
    model = BlockBootstrap.from_settings({"block_length": 30.0}).fit(ticked, rng=stream(4, "fit"))
    # A history at ten times the price moves by ticks of a tenth the size.
    higher = Series(ticked.values * 10, ticked.names, ticked.step_ns, ticked.start_ns, 0.01)
    found = accepted(model, higher, paths=2, steps=1201, min_fidelity=0.0, rng=stream(5, "draw"))
    assert found.facts()["verbatim_share"] > 0.9
    assert search(generator, ticked, min_fidelity=0.0).facts()["verbatim_share"] == 0


def test_copies_are_counted_beside_the_score():
    base = base_of(Market(), 1201)
    generator = BlockBootstrap.from_settings({"block_length": 30.0}).fit(base, rng=stream(4, "fit"))
    found = accepted(generator, base, paths=4, steps=1201, min_fidelity=80, rng=stream(5, "draw"))
    facts, real = found.facts(), Sample.of(base)
    made = Sample.of(
        Series(np.stack(list(joined(found.pieces()).values())), ("close",), MINUTE_NS, np.zeros(4, np.int64), 0.0)
    )
    assert facts["verbatim_share"] == copying.verbatim_share(real, made) > 0.9
    assert facts["longest_verbatim_run"] == copying.longest_verbatim_run(real, made) > 10
    assert 5 <= facts["mean_verbatim_run"] <= facts["longest_verbatim_run"]
    assert search(Market()).facts()["verbatim_share"] == 0


def test_real_prices_reach_95(real):
    import gzip

    import polars as pl

    close = pl.read_csv(gzip.decompress(real("sp500_daily_1999_2018.csv.gz").read_bytes()))
    close = close.rename(str.lower)["close"].cast(pl.Float64).to_numpy()[:2500]
    base = Series(close[np.newaxis, :, np.newaxis], ("close",), 86_400 * 10**9, np.zeros(1, np.int64), 0.01)
    generator = BlockBootstrap().fit(base, rng=stream(6, "fit"))
    found = accepted(generator, base, paths=20, steps=2500, min_fidelity=95, rng=stream(7, "draw"))
    assert found.acceptance_rate > 0.5
    with pytest.raises(TooLittleDataError):
        accepted(generator, base.slice(0, 60), paths=1, steps=2500, min_fidelity=95, rng=stream(7, "draw"))

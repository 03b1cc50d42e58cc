"""Floors of four kinds, verdicts on many numbers at once, the grade, and what is not given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.fidelity.evaluate import evaluate
from synth_pipeline.fidelity.evaluation import Evaluation
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.verdicts import FALSE_ALARMS, Question, judged
from synth_pipeline.reports.report import Report
from synth_pipeline.rng import stream
from tests.test_fidelity import RETURNS, market, series, stretches


def ask(value, draws, goal="target", real=(0.0,), **more):
    return Question(value, np.asarray(draws, dtype=np.float64), real, goal, **more)


def test_verdicts_follow_the_goal_and_the_distance():
    draws = stream(0, "draws").standard_normal(400)
    for goal, side in (("low", 1), ("high", -1), ("target", 1), ("target", -1)):
        found = [judged({"only": ask(side * value, draws, goal)})[0]["only"].verdict for value in (0.5, 1.5, 2.5, 30.0)]
        assert found == ["indistinguishable", "indistinguishable", "close", "off"]
    for goal, side in (("low", -1), ("high", 1)):
        assert judged({"only": ask(side * 30.0, draws, goal)})[0]["only"].verdict == "indistinguishable"


def test_verdict_on_a_log_scale_is_symmetric_in_ratios():
    draws = np.exp(np.linspace(np.log(10), np.log(40), 100))
    excess = [ask(value, draws, real=(20.0,), scale="log").excess() for value in (2.0, 200.0)]
    assert excess[0] == pytest.approx(excess[1])
    assert ask(0.0, draws, real=(20.0,), scale="log").excess() == np.inf


@given(st.floats(-10, 10), st.sampled_from(["low", "high", "target"]))
def test_what_real_data_score_is_never_worse_than_indistinguishable(value, goal):
    question = ask(value, np.linspace(0, 1, 50), goal, real=(value,))
    assert judged({"only": question})[0]["only"].verdict == "indistinguishable"


def test_any_of_many_numbers_of_real_data_is_called_otherwise_in_one_of_twenty_cases():
    """Dependent numbers with long tails; 400 cases have a standard error of 1.1 %."""
    alarms = 0
    for case in range(400):
        rng = stream(case, "family")
        shared = rng.standard_normal((251, 1))
        numbers = shared + rng.standard_normal((251, 30)) * np.where(np.arange(30) % 2, 1.0, 3.0)
        numbers[:, 20:] = np.sinh(numbers[:, 20:])
        questions = {
            str(k): ask(numbers[0, k], numbers[1:, k], real=(float(np.median(numbers[1:, k])),)) for k in range(30)
        }
        alarms += any(found.verdict != "indistinguishable" for found in judged(questions)[0].values())
    assert alarms / 400 <= FALSE_ALARMS + 0.035


def test_a_gross_fault_does_not_hide_a_smaller_one():
    rng = stream(1, "stepdown")
    draws = rng.standard_normal((200, 2))
    draws[::25, 0] = 40.0
    both = judged({"gross": ask(1e4, draws[:, 0]), "small": ask(3.5, draws[:, 1])})[0]
    assert both["gross"].verdict == "off"
    assert both["small"].verdict != "indistinguishable"
    hidden = judged({"wild": ask(0.0, draws[:, 0]), "small": ask(3.5, draws[:, 1])})[0]
    assert hidden["small"].excess == both["small"].excess


@pytest.fixture(scope="module")
def found():
    train, holdout = stretches(1500, 699)
    return evaluate(train, series(market(stream(2, "made"), 3, 699), tick=0.01), holdout, rng=stream(0, "evaluate"))


def test_every_number_stands_beside_four_floors_or_says_why_not(found):
    for result in found.results:
        if result.verdict == "absent":
            assert result.reason
            continue
        for kind in ("split_half", "bootstrap", "fresh", "copy"):
            floor = getattr(result.floors, kind)
            assert (floor.value is None) == bool(floor.reason)
    results = {result.name: result for result in found.results}
    assert results["verbatim_share"].floors.copy.value == 1
    assert results["verbatim_share"].floors.bootstrap.value > 0.8
    assert results["verbatim_share"].floors.fresh.value == 0
    assert results["volatility"].floors.bootstrap.draws == 100
    assert results["duplicate_share"].floors.copy.value == 1


def test_a_faithful_sample_has_an_a_and_what_nobody_measured_is_not_permitted(found):
    assert found.grade == "A"
    uses = {use.name: use.permission for use in found.uses}
    assert uses["risk"] == uses["volatility"] == uses["strategies"] == "yes"
    assert uses["execution"] == uses["portfolios"] == "unknown"


def test_the_report_is_saved_read_back_and_drawn(found, tmp_path):
    report = Report(found)
    again = Report.load(report.save(tmp_path / "record.json"))
    assert again.evaluation == found
    assert again.score == found.fidelity
    assert {"value", "fresh", "copy_low", "split_half"} <= set(again.table()[0])
    assert len(again.figure("price").data) > 3


def test_without_held_out_data_the_end_of_the_real_ones_is_held_out_and_the_record_says_so():
    train, _ = stretches(1500, 699)
    made = series(market(stream(3, "made"), 2, 400), tick=0.01)
    found = evaluate(train, made, rng=stream(0, "evaluate"), families=RETURNS)
    assert found.sizes.holdout == "the last 30% of the real data"
    assert (found.sizes.train_steps, found.sizes.holdout_steps) == (1051, 450)
    assert Evaluation.from_json(found.to_json()) == found


def test_long_series_are_thinned_and_the_record_says_so():
    rng = stream(4, "long")
    train, holdout, made = (series(1e-4 * rng.standard_normal((1, n))) for n in (150_000, 60_000, 120_000))
    found = evaluate(train, made, holdout, rng=rng, families=["copying"])
    assert found.sizes.compared_returns <= 10_000
    assert any("synthetic windows" in told for told in found.sizes.thinned)
    assert Sample.of(made).paths == 1

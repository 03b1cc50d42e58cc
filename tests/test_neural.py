"""The shared training run: turns, averages, alarms, silence; and the shared way to sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synth_pipeline.errors import TooLittleDataError, TrainingError
from synth_pipeline.features.windows import windows
from synth_pipeline.generators.neural import Phase, Player, Recipe, Windows, reproducible, roll_out, train
from synth_pipeline.rng import per_path, stream
from synth_pipeline.series import Series

Loss = Callable[[Tensor, torch.Generator], Tensor]


class Scalar(nn.Module):
    """One weight."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))


def scores(rows: int = 60) -> Series:
    """Two paths of two features, with gaps."""
    values = stream(0, "scores").standard_normal((2, rows, 2))
    values[0, 20], values[1, :5] = np.nan, np.nan
    return Series(values, ("mid", "volume"), 1, np.array([0, 0]), 0.0)


def run(recipe: Recipe, seed: int = 0) -> list[float]:
    """Train and return the losses of the first player."""
    history = train("toy", recipe, Windows.of(scores(), 5, 1), rng=stream(seed, "train"))
    return next(iter(history.losses.values()))


def of_weight(network: Scalar, function: Callable[[Tensor], Tensor] = torch.sum) -> Loss:
    """A loss that looks at the weight only."""

    def loss(batch: Tensor, noise: torch.Generator) -> Tensor:
        return function(network.weight)

    return loss


def alone(network: nn.Module, loss: Loss, steps: int = 3, **more: object) -> Recipe:
    """The recipe of one player."""
    player = Player("player", network, loss, learning_rate=0.1)
    return Recipe((Phase(steps, (player,)),), batch=4, average=network, **more)  # type: ignore[arg-type]


def test_windows_are_all_and_only_those_without_a_gap() -> None:
    series = scores()
    found = Windows.of(series, 5, 1)
    every = windows(series, 5).astype(np.float32)
    assert len(found.starts) == len(every)
    known = {window.tobytes() for window in every}
    drawn = found.batch(2_000, torch.Generator().manual_seed(0)).numpy()
    assert {window.tobytes() for window in drawn} == known


def test_too_few_windows_are_refused() -> None:
    with pytest.raises(TooLittleDataError, match="0 windows of 61 steps without a gap and 1 are needed"):
        Windows.of(scores(), 61, 1)


def test_players_take_turns_in_their_phases() -> None:
    called: list[str] = []

    def player(name: str, updates: int) -> Player:
        network = Scalar()

        def loss(batch: Tensor, noise: torch.Generator) -> Tensor:
            called.append(name)
            assert batch.shape == (4, 5, 2)
            return network.weight.sum()

        return Player(name, network, loss, learning_rate=0.1, updates=updates)

    first, second, third = player("first", 1), player("second", 2), player("third", 1)
    phases = (Phase(2, (first,)), Phase(2, (second, third)))
    history = train("toy", Recipe(phases, 4, first.network), Windows.of(scores(), 5, 1), rng=stream(0, "train"))
    assert called == ["first"] * 2 + ["second", "second", "third"] * 2
    assert {name: len(losses) for name, losses in history.losses.items()} == {"first": 2, "second": 2, "third": 2}
    assert history.summary()["training_steps"] == 4


def test_the_network_ends_as_the_average_of_its_steps() -> None:
    network, seen = Scalar(), []

    def loss(batch: Tensor, noise: torch.Generator) -> Tensor:
        seen.append(float(network.weight.detach()))
        return (network.weight**2).sum()

    steps = 30
    run(alone(network, loss, steps + 1, decay=0.9))
    average = seen[0]
    # What the loss saw at the start of step k + 1 is what step k left behind; the last step is not seen.
    for done, left in enumerate(seen[1:], start=1):
        keep = min(0.9, done / (done + 9))
        average = keep * average + (1 - keep) * left
    assert seen[-1] < 0.2
    assert float(network.weight) == pytest.approx(0.9 * average + 0.1 * seen[-1], abs=1e-3)
    assert not network.weight.requires_grad


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            lambda weight: weight.sum() * float("nan"),
            "toy: player at step 0: non-finite loss nan; lower its learning rate",
        ),
        (lambda weight: (weight - weight).sqrt().sum(), "non-finite gradient"),
        (lambda weight: 1e6 * weight.sum(), "diverged, its loss is 1e\\+06"),
    ],
)
def test_losses_that_go_wrong_are_named(loss: Callable[[Tensor], Tensor], message: str) -> None:
    network = Scalar()
    with pytest.raises(TrainingError, match=message):
        run(alone(network, of_weight(network, loss)))


def test_collapse_is_named() -> None:
    network = Scalar()

    def probe(noise: torch.Generator) -> Tensor:
        drawn = torch.randn(8, 5, 2, generator=noise)
        drawn[:, :, 1] *= 0.01
        return drawn

    with pytest.raises(
        TrainingError, match=r"toy: collapsed by step 11\d, feature 1 of different paths varies by 0\.\d%"
    ):
        run(alone(network, of_weight(network), 200, probe=probe))


def test_the_clock_can_end_training() -> None:
    network = Scalar()
    assert len(run(alone(network, of_weight(network), 50, seconds=1e-9))) == 1


def test_training_is_reproducible_whatever_the_threads() -> None:
    def trained(threads: int, seed: int) -> list[float]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        with reproducible(stream(0, "build")):
            network = nn.Linear(2, 64)

        def loss(batch: Tensor, noise: torch.Generator) -> Tensor:
            wanted = torch.randn(4, 5, 64, generator=noise)
            return ((nn.functional.dropout(network(batch)) - wanted) ** 2).mean()

        try:
            return run(alone(network, loss, 20), seed)
        finally:
            torch.set_num_threads(before)

    assert trained(1, 0) == trained(2, 0)
    assert trained(1, 0) != trained(1, 1)


def test_training_is_silent(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = Scalar()
    run(alone(network, of_weight(network)))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_the_process_is_left_as_it_was_even_by_a_fault() -> None:
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="shape"), reproducible(stream(0, "fault")):
        torch.randn(3).view(2, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("burn_in", [0, 7, 200])
def test_paths_are_connected_padded_and_independent_of_their_neighbours(burn_in: int) -> None:
    shapes = set()

    def advance(noise: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        shapes.add(tuple(noise.shape))
        walked = noise.double().cumsum(dim=1) + (0.0 if state is None else state)
        return walked, walked[:, -1:]

    def walks(rows: list[int], *counts: int) -> list[np.ndarray]:
        streams = per_path(stream(1, "paths"), 16)
        return list(roll_out(advance, {row: streams[row] for row in rows}, counts, width=3, burn_in=burn_in))

    (many,) = walks(list(range(16)), 400)
    assert many.shape == (16, 400, 3)
    np.testing.assert_array_equal(walks([3, 9], 150)[0], many[[3, 9], :150])
    np.testing.assert_array_equal(np.concatenate(walks([5], 1, 0, 200, 64), axis=1), many[[5], :265])
    assert len(shapes) == 1
    increments = np.diff(many, axis=1)
    assert abs(increments).max() < 6
    assert increments.std() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(increments[0, :, 0], increments[1, :, 0])[0, 1]) < 0.2


def test_the_threads_of_a_consumer_are_its_own_while_a_stream_is_open() -> None:
    threads = torch.get_num_threads()
    pieces = roll_out(lambda noise, _: (noise, None), {0: stream(0, "row")}, (10, 10), width=1, burn_in=0)
    next(pieces)
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()

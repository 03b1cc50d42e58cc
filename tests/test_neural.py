"""The shared training run: turns, averages, alarms, silence; and the shared way to sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synth_pipeline import generators, plugins
from synth_pipeline.errors import InputError, TooLittleDataError, TrainingError
from synth_pipeline.features.windows import windows
from synth_pipeline.generators.neural import NeuralGenerator, roll_out
from synth_pipeline.generators.recipe import Phase, Player, Recipe, Watch, budget_seconds
from synth_pipeline.generators.training import reproducible, train
from synth_pipeline.generators.training_together import rank
from synth_pipeline.generators.training_windows import Windows, nearest
from synth_pipeline.rng import per_path, stream
from synth_pipeline.series import Series
from tests import naive_generators as naive
from tests.test_generators import QUICK

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


# Going on after a kill.


class KilledError(Exception):
    """The process is gone."""


def contest(steps: int, held: bool = False) -> tuple[Recipe, list[nn.Module]]:
    """Two phases and two players with dropout and batch statistics: all that a run has to remember."""
    with reproducible(stream(5, "build")):
        body = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(8, 2))
        other = nn.Linear(2, 2)

    def first(batch: Tensor, noise: torch.Generator) -> Tensor:
        return ((body(batch) - batch) ** 2).mean()

    def second(batch: Tensor, noise: torch.Generator) -> Tensor:
        return ((other(body(batch)) - torch.randn(batch.shape, generator=noise)) ** 2).mean()

    one = Player("one", body, first, 0.01)
    two = Player("two", other, second, 0.02, updates=2)
    phases = (Phase(steps, (one,)), Phase(steps, (two, one)))
    return Recipe(phases, 8, body, held_out=first if held else None), [body, other]


def trained(watch: Watch | None, steps: int = 6, *, held: bool = False, seed: int = 0) -> tuple[bytes, dict[str, list]]:
    """Train and return every weight and every loss."""
    recipe, networks = contest(steps, held)
    data = Windows.of(scores(), 5, 1)
    train_part, held_part = data.parted(0.2) if held else (data, None)
    history = train("toy", recipe, train_part, rng=stream(seed, "train"), held=held_part, watch=watch)
    weights = [t.numpy().tobytes() for network in networks for t in network.state_dict().values()]
    return b"".join(weights), history.losses | {"held out": history.held_out}


def killed_at(step: int) -> Callable[[int, Mapping[str, float]], None]:
    def look(now: int, losses: Mapping[str, float]) -> None:
        if now == step:
            raise KilledError

    return look


def test_losses_stand_at_their_steps() -> None:
    recipe, _ = contest(4, held=True)
    train_part, held = Windows.of(scores(), 5, 1).parted(0.2)
    found = train("toy", recipe, train_part, rng=stream(0, "train"), held=held).curves()
    assert [step for step, _ in found["loss/one"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [step for step, _ in found["loss/two"]] == [5, 6, 7, 8]
    assert [step for step, _ in found["loss/held out"]] == [5, 6, 7, 8]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("kills", [(1,), (6,), (11,), (2, 5, 7, 12)])
def test_a_killed_run_goes_on_with_the_same_bytes(kills: tuple[int, ...], held: bool, tmp_path: Path) -> None:
    state = tmp_path / "deep" / "run.state"
    for step in kills:
        with pytest.raises(KilledError):
            trained(Watch(state, every_seconds=0.0, on_losses=killed_at(step)), held=held)
    assert trained(Watch(state, every_seconds=0.0), held=held) == trained(None, held=held)
    assert [path.name for path in state.parent.iterdir()] == ["run.state"]


def test_a_finished_run_is_taken_up_as_finished(tmp_path: Path) -> None:
    state, called = tmp_path / "run.state", []
    first = trained(Watch(state))
    assert trained(Watch(state, on_losses=lambda step, _: called.append(step))) == first
    assert called == []


def test_a_kill_while_the_state_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "run.state"
    with pytest.raises(KilledError):
        trained(Watch(state, every_seconds=0.0, on_losses=killed_at(4)))

    def torn(kept: object, file: BinaryIO) -> None:
        file.write(b"half a st")
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", torn)
        with pytest.raises(KilledError):
            trained(Watch(state, every_seconds=0.0))
    assert trained(Watch(state)) == trained(None)


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "run.state"
    trained(Watch(state))
    for more in ({"seed": 1}, {"steps": 7}, {"held": True}):
        with pytest.raises(InputError, match=r"run\.state is of another training run .*: delete it to start anew"):
            trained(Watch(state), **more)  # type: ignore[arg-type]
    state.write_bytes(b"no state")
    with pytest.raises(InputError, match="is no training state"):
        trained(Watch(state))


# Several processes.


def together(watch: Watch) -> tuple[bytes, dict[str, list]]:
    return trained(replace(watch, devices=2, accelerator="cpu"), held=True)


def test_two_processes_learn_one_network_go_on_after_a_kill_and_are_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "run.state"
    whole = together(Watch())
    with pytest.raises(Exception, match="KilledError"):
        together(Watch(state, every_seconds=0.0, on_losses=killed_at(7)))
    assert state.exists()
    assert together(Watch(state)) == whole
    assert whole[0] != trained(Watch(), held=True)[0]
    with pytest.raises(InputError, match="of another training run"):
        trained(Watch(state), held=True)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_processes_share_gradients_losses_and_alarms() -> None:
    network = Scalar()

    def torn(weight: Tensor) -> Tensor:
        return weight.sum() * (1.0 if rank() else -3.0)

    def pulled(recipe: Recipe) -> list[float]:
        watch = Watch(devices=2, accelerator="cpu")
        history = train("toy", recipe, Windows.of(scores(), 5, 1), rng=stream(0, "train"), watch=watch)
        return history.losses["player"]

    losses = pulled(alone(network, of_weight(network, torn), 1))
    assert losses == [-1.0]
    assert float(network.weight) > 1  # up the mean slope, -1; the second alone would have gone down
    network = Scalar()
    pulled(alone(network, of_weight(network, lambda weight: weight.sum() * (1.0 if rank() else -1.0)), 1))
    assert float(network.weight) == 1
    network = Scalar()
    with pytest.raises(TrainingError, match=r"^toy: player at step 0: non-finite loss nan; lower its learning rate"):
        pulled(alone(network, of_weight(network, lambda weight: weight.sum() * (float("nan") if rank() else 1.0))))


def test_a_budget_is_shared_by_processes() -> None:
    network = Scalar()
    recipe = alone(network, of_weight(network), 400, seconds=0.4)
    watch = Watch(devices=2, accelerator="cpu")
    history = train("toy", recipe, Windows.of(scores(), 5, 1), rng=stream(0, "train"), watch=watch)
    assert history.steps >= 1


# What ends a run early, and what it says.


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5_400), ("1.5m", 90), (" 2h ", 7_200)]
)
def test_budgets_are_read(text: str, seconds: float) -> None:
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "m", "5 minutes", "-3m", "infs"])
def test_budgets_that_are_no_time_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="write it like 90s, 5m or 1h30m"):
        budget_seconds(text)


def test_phases_share_a_budget_and_every_one_has_a_step() -> None:
    recipe, _ = contest(3)
    history = train("toy", replace(recipe, seconds=1e-9), Windows.of(scores(), 5, 1), rng=stream(0, "train"))
    assert {name: len(losses) for name, losses in history.losses.items()} == {"one": 2, "two": 1}


def test_training_ends_where_the_held_out_loss_rises_and_keeps_its_least() -> None:
    network = Scalar()

    def held_out(windows: Tensor, noise: torch.Generator) -> Tensor:
        return (network.weight - 0.5).abs().sum()

    recipe = replace(alone(network, of_weight(network), 2_000), held_out=held_out)
    train_part, held = Windows.of(scores(), 5, 1).parted(0.2)
    history = train("toy", recipe, train_part, rng=stream(0, "train"), held=held)
    assert history.steps < 1_000
    assert float(network.weight) - 0.5 == pytest.approx(min(history.held_out), abs=1e-6) or float(network.weight) < 0.5
    assert abs(float(network.weight) - 0.5) == pytest.approx(min(history.held_out), abs=1e-6)
    assert history.summary()["held_out_loss"] == min(history.held_out)


def test_a_dead_discriminator_is_named() -> None:
    network = Scalar()
    player = Player("discriminator", network, of_weight(network, lambda weight: 0 * weight.sum()), 0.1, dead_below=1e-3)
    with pytest.raises(TrainingError, match=r"toy: discriminator at step 199: dead, its loss has been below 0\.001"):
        run(Recipe((Phase(300, (player,)),), 4, network))


def test_a_player_that_wins_rests() -> None:
    network = Scalar()
    player = Player("winner", network, of_weight(network), 0.1, rests_below=0.5)
    losses = run(Recipe((Phase(30, (player,)),), 4, network))
    assert 0.4 - 1e-5 <= min(losses) < 0.5
    assert losses[-1] == losses[-2]


def test_windows_held_out_share_no_row_with_those_trained_on() -> None:
    data = Windows.of(scores(), 5, 1)
    kept, held = data.parted(0.2)
    rows = [{int(start) + step for start in part.starts for step in range(5)} for part in (kept, held)]
    assert not rows[0] & rows[1]
    assert max(rows[0]) < min(rows[1])
    assert len(held.starts) == pytest.approx(0.2 * len(data.starts), abs=1)
    with pytest.raises(TooLittleDataError, match="leave none to hold out"):
        Windows(data.rows, data.starts[:5], 5).parted(0.2)


def test_the_nearest_window_is_the_nearest() -> None:
    data = Windows.of(scores(), 5, 1)
    every = data.at(np.arange(len(data.starts)))
    made = torch.randn(7, 5, 2, generator=torch.Generator().manual_seed(0))
    slow = [min(float(((one - known) ** 2).mean().sqrt()) for known in every) for one in made]
    np.testing.assert_allclose(nearest(made, data).numpy(), slow, rtol=1e-4)
    assert float(nearest(every[3:4], data)) == pytest.approx(0, abs=1e-3)


# What generators make of it.


def tiny(name: str, **more: object) -> Any:
    kind = plugins.load(generators, name)
    return kind.from_settings({**QUICK[name], **more})


def test_a_generator_goes_on_after_a_kill_and_from_an_earlier_one(tmp_path: Path) -> None:
    series = naive.market(400)

    def fitted(watch: Watch | None, seed: int = 0) -> NeuralGenerator:
        made = tiny("vanilla_gan")
        made.watch = watch
        return made.fit(series, rng=stream(seed, "fit"))

    state = tmp_path / "run.state"
    with pytest.raises(KilledError):
        fitted(Watch(state, every_seconds=0.0, on_losses=killed_at(2)))
    ours, plain = fitted(Watch(state)), fitted(None)
    samples = [each.sample(5, 20, rng=stream(0, "sample")).values for each in (ours, plain)]
    np.testing.assert_array_equal(*samples)
    folder = tmp_path / "yesterday"
    folder.mkdir()
    plain.save(folder)
    warm, cold = fitted(Watch(start_from=folder), 1), fitted(None, 1)
    apart = [
        sum(
            float((mine - old).abs().sum())
            for mine, old in zip(n.parameters(), plain.network.parameters(), strict=True)
        )
        for n in (warm.network, cold.network)
    ]
    assert apart[0] < apart[1] / 3
    wide, cold = tiny("vanilla_gan", hidden=9), tiny("vanilla_gan", hidden=9).fit(series, rng=stream(0, "fit"))
    wide.watch = Watch(start_from=folder)
    wide.fit(series, rng=stream(0, "fit"))
    assert wide.notes == ["started cold: the networks of the checkpoint to start from have other sizes"]
    for mine, theirs in zip(wide.network.parameters(), cold.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(InputError, match="holds no weights to start from"):
        fitted(Watch(start_from=tmp_path))


def test_released_windows_are_no_copies(tmp_path: Path) -> None:
    made = tiny("vanilla_gan", preset="release").fit(naive.market(700), rng=stream(0, "fit"))
    assert made.too_near > 0
    sample = made.sample(6, 24, rng=stream(0, "sample")).values
    made.save(tmp_path)
    again = type(made).load(tmp_path)
    np.testing.assert_array_equal(again.sample(3, 24, rng=stream(0, "sample")).values, sample[:3])
    raw = next(iter(made.roll(dict(enumerate(per_path(stream(0, "raw"), 256))), (24,))))
    assert made.fitted is not None
    made.too_near = float(nearest(torch.from_numpy(made.calibrated(raw)).float(), made.fitted).median())
    others = made.sample(6, 24, rng=stream(0, "sample")).values
    assert not np.array_equal(others, sample)
    np.testing.assert_array_equal(made.sample(2, 24, rng=stream(0, "sample")).values, others[:2])
    made.too_near = 1e9
    with pytest.raises(TrainingError, match="vanilla_gan: a window was a copy of a fitted one 20 times"):
        made.sample(1, 24, rng=stream(0, "sample"))


def test_windows_of_any_features_are_fitted_and_sampled_in_their_units() -> None:
    values = 5 + stream(0, "walks").standard_normal((300, 24, 3)).cumsum(axis=1)
    made = tiny("vanilla_gan", steps=30).fit_windows(values, rng=stream(0, "fit"))
    sample = made.sample_windows(300, rng=stream(0, "sample"))
    assert sample.shape == (300, 24, 3)
    np.testing.assert_array_equal(made.sample_windows(2, rng=stream(0, "sample")), sample[:2])
    np.testing.assert_allclose(sample.mean(axis=(0, 1)), values.mean(axis=(0, 1)), atol=0.3)
    np.testing.assert_allclose(sample.std(axis=(0, 1)), values.std(axis=(0, 1)), rtol=0.15)
    with pytest.raises(InputError, match="are not of 24 steps"):
        made.fit_windows(values[:, :9], rng=stream(0, "fit"))


@pytest.mark.parametrize("name", ["timegan", "time_vae", "wgan_gp", "conditional_gan"])
def test_a_portrait_shows_fitted_windows_beside_made_ones(name: str) -> None:
    made = tiny(name).fit(naive.market(300), rng=stream(0, "fit"))
    first, again = (made.portrait(rng=stream(1, "portrait")) for _ in range(2))
    steps = made.parameters.window
    assert first.real.shape == first.made.shape == (150, steps, 4)
    assert first.real_latent.shape == first.made_latent.shape
    assert first.real_latent.shape[1] == {"timegan": 8 * steps, "time_vae": 4}.get(name, 4 * steps)
    np.testing.assert_array_equal(first.made_latent, again.made_latent)
    assert 0.5 < first.made.std() / first.real.std() < 2

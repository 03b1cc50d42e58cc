"""The one training run of all neural generators: turns, averages, alarms, budget, early stop, exact resume.

A model file states networks and losses as a `Recipe`; it knows nothing of Lightning. Here lie the optimizers, the
average of the weights, the alarms, the clock, the device, determinism and silence. What is kept is the last average of
the weights or, where a recipe has a loss on held-out windows, the average with the least one: no model is selected by
a score that is reported later. What surrounds a run and does not change what it learns is its `Watch`: where its state
is kept, from which it goes on after a kill, what it starts from, who is told of its losses.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.errors import InputError, TrainingError
from synth_pipeline.generators import training_state
from synth_pipeline.generators.recipe import History, Player, Recipe, Watch
from synth_pipeline.generators.training_together import alarms, mean, of_first, rank
from synth_pipeline.generators.training_windows import Windows
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import one_thread

_LOUD = ("pytorch_lightning", "lightning_fabric", "torch.multiprocessing.spawn")
_DIVERGED = 1e5
_COLLAPSED, _PATIENCE, _PROBES, _SETTLED = 0.05, 3, 40, 100
_DEAD_STEPS = 200
_HELD_WINDOWS, _HELD_PATIENCE = 256, 10


@contextmanager
def reproducible(rng: np.random.Generator) -> Iterator[torch.Generator]:
    """Seed torch from `rng` and run it on one thread inside the block; leave the process as it was after it.

    Layers draw their initial weights and dropout from the seeded global generator; everything else draws from the one
    that is given.
    """
    noise = torch.Generator()
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(int(rng.integers(0, 2**63)))
        noise.manual_seed(int(rng.integers(0, 2**63)))
        yield noise


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from announcing its hardware, its processes, its tips and its own deprecations."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@dataclass
class _Run:
    """The steps of one training run; the Lightning module hands it batches and optimizers."""

    name: str
    recipe: Recipe
    spread: Tensor
    held: Tensor | None
    noise: torch.Generator
    progress: Progress
    elapsed: float = 0.0
    """Seconds spent before this process took over."""

    def __post_init__(self) -> None:
        self.total = sum(phase.steps for phase in self.recipe.phases)
        self.history = History()
        self.average = copy.deepcopy(self.recipe.average).requires_grad_(False)
        self.done = [0] * len(self.recipe.phases)
        self.collapsed, self.dead = 0, dict.fromkeys((p.name for phase in self.recipe.phases for p in phase.players), 0)
        self.worse, self.best = 0, copy.deepcopy(self.average.state_dict())
        self.seed = self.noise.initial_seed() % 2**40
        self.started = time.monotonic()

    @cached_property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """What is averaged, and of what; first asked for when both are on the device of the run."""
        return list(zip(self.average.state_dict().values(), self.recipe.average.state_dict().values(), strict=True))

    @property
    def spent(self) -> float:
        """Seconds of training, those before a kill included."""
        return self.elapsed + time.monotonic() - self.started

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.recipe.average.parameters()).device

    @property
    def overfits(self) -> bool:
        """Whether the held-out loss has not fallen for so long that training ends."""
        return self.worse >= _HELD_PATIENCE

    def share(self, at: int, step: int) -> float:
        """Return how much of a phase is over, before a step of it."""
        phases, seconds = self.recipe.phases, self.recipe.seconds
        if seconds is None:
            return step / phases[at].steps
        begins = sum(phase.steps for phase in phases[:at]) / self.total
        return (of_first(self.spent, self.device) / seconds - begins) * self.total / phases[at].steps

    def updates(self) -> Iterator[tuple[int, list[tuple[int, float]]]]:
        """Yield, for every step to come, its phase and the updates to make: number of the player, share of its rate.

        A phase has one step at least.
        """
        first = 0
        for at, phase in enumerate(self.recipe.phases):
            step = self.done[at]
            while step == 0 or self.share(at, step) < 1:
                over = self.share(at, step) if step else 0.0
                rates = [(first + who, each.schedule(over), each.updates) for who, each in enumerate(phase.players)]
                yield at, [(who, rate) for who, rate, updates in rates for _ in range(updates)]
                step += 1
            first += len(phase.players)

    def draw_apart(self, rank: int) -> None:
        """Let a process beside the first draw windows and noise of its own.

        By the number of the step, so that the state of the first one is enough to go on with after a kill.
        """
        seed = self.seed + (self.history.steps << 8) + rank
        self.noise.manual_seed(seed)
        torch.manual_seed(seed)

    def check(self, player: Player, loss: float, norm: float) -> None:
        """Raise `TrainingError` for a loss or gradient that is no number, one that runs away, and a dead player."""
        where = f"{self.name}: {player.name} at step {self.history.steps}"
        remedy = f"lower its learning rate ({player.learning_rate:g})"
        if not np.isfinite(loss):
            raise TrainingError(f"{where}: non-finite loss {loss}; {remedy}")
        if not np.isfinite(norm):
            raise TrainingError(f"{where}: non-finite gradient; {remedy}")
        if abs(loss) > _DIVERGED:
            raise TrainingError(f"{where}: diverged, its loss is {loss:.3g}; {remedy}")
        if player.dead_below is None:
            return
        self.dead[player.name] = self.dead[player.name] + 1 if loss < player.dead_below or norm == 0 else 0
        if self.dead[player.name] >= _DEAD_STEPS * player.updates:
            raise TrainingError(
                f"{where}: dead, its loss has been below {player.dead_below:g} or without a gradient for {_DEAD_STEPS} "
                f"steps, so nothing is learnt from it; {remedy} or add instance noise"
            )

    def finish_step(self, at: int, losses: dict[str, float]) -> None:
        """Average the weights, look for collapse and for overfitting, report."""
        for name, loss in losses.items():
            self.history.begins.setdefault(name, self.history.steps)
            self.history.losses.setdefault(name, []).append(loss)
        self.history.steps += 1
        self.done[at] += 1
        done = self.history.steps
        keep = min(self.recipe.decay, done / (done + 9))
        with torch.no_grad():
            for kept, now in self.pairs:
                kept.lerp_(now, 1 - keep) if kept.is_floating_point() else kept.copy_(now)
        if done % max(1, self.total // _PROBES) == 0:
            if done > max(_SETTLED, self.total // 4):  # an untrained network may vary little: that is no collapse
                self.look_for_collapse()
            if at == len(self.done) - 1:
                self.look_at_held_out()
            self.report(f"step {done}: " + ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items()))

    def report(self, note: str) -> None:
        """Say how far training is, in steps or in time."""
        over = self.history.steps / self.total if self.recipe.seconds is None else self.spent / self.recipe.seconds
        self.progress(min(int(over * self.total + 1e-9), self.total), self.total, note)

    def look_for_collapse(self) -> None:
        """Raise `TrainingError` when, some probes in a row, a feature hardly varies from path to path."""
        if self.recipe.probe is None:
            return
        with torch.no_grad(), _judged(self.recipe.average):
            made = self.recipe.probe(self.noise)
        varies = made.std(dim=0).mean(dim=0).cpu() / self.spread[: made.shape[2]]
        low = int(varies.argmin())
        least = of_first(float(varies[low]), self.device)
        self.collapsed = self.collapsed + 1 if least < _COLLAPSED else 0
        if self.collapsed >= _PATIENCE:
            raise TrainingError(
                f"{self.name}: collapsed by step {self.history.steps}, feature {low} of different paths varies by "
                f"{least:.1%} of what the data do; use another seed or a lower learning rate"
            )

    def look_at_held_out(self) -> None:
        """Keep the averaged weights with the least loss on held-out windows, and count how often it did not fall."""
        if self.held is None or self.recipe.held_out is None:
            return
        network, now = self.recipe.average, copy.deepcopy(self.recipe.average.state_dict())
        network.load_state_dict(self.average.state_dict())
        with torch.no_grad(), _judged(network):  # the same noise every time: the losses differ by the weights alone
            loss = of_first(float(self.recipe.held_out(self.held, torch.Generator().manual_seed(0))), self.device)
        network.load_state_dict(now)
        if loss < min(self.history.held_out, default=np.inf):
            self.worse, self.best = 0, copy.deepcopy(self.average.state_dict())
        else:
            self.worse += 1
        self.history.held_out.append(loss)
        self.history.held_out_at.append(self.history.steps)

    def weights(self) -> dict[str, Tensor]:
        """Return what is kept: the average, of the least held-out loss where there is one."""
        kept: dict[str, Tensor] = self.best if self.history.held_out else self.average.state_dict()
        return kept

    def state(self) -> dict[str, Any]:
        """Return what a run needs to go on."""
        plain = {key: getattr(self, key) for key in ("done", "collapsed", "dead", "worse", "best")}
        both = {"noise": self.noise.get_state(), "layers": torch.random.get_rng_state()}
        learnt = {"history": vars(self.history), "average": self.average.state_dict()}
        return plain | both | learnt | {"elapsed": self.spent}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for key in ("done", "collapsed", "dead", "worse", "best", "elapsed"):
            setattr(self, key, state[key])
        self.history = History(**state["history"])
        self.average.load_state_dict(state["average"])
        self.noise.set_state(state["noise"])
        torch.random.set_rng_state(state["layers"])


@contextmanager
def _judged(network: nn.Module) -> Iterator[None]:
    """Put a network into the mode that it samples in: no dropout, fixed batch statistics."""
    trained = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(trained)


def device_of(accelerator: str, devices: int = 1) -> torch.device:
    """Return the device to train on. Raises `InputError` for a GPU that is not there."""
    if accelerator not in {"auto", "cpu", "gpu"}:
        raise InputError(f"accelerator {accelerator!r} is none of ours: choose auto, cpu or gpu")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("there is no GPU that torch can use: choose accelerator auto or cpu")
    if accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if devices > (there := torch.cuda.device_count()):
        raise InputError(
            f"{devices} devices are more than the {there} GPUs that torch can use: choose {there} or fewer"
        )
    return torch.device("cuda")


def train(
    name: str,
    recipe: Recipe,
    data: Windows,
    *,
    rng: np.random.Generator,
    progress: Progress = silent,
    held: Windows | None = None,
    watch: Watch | None = None,
) -> History:
    """Train in place; `recipe.average` ends with averaged weights.

    Writes no file but the state that `watch` names, and no log; the same `rng` gives the same bytes on a CPU, however
    often the run was killed and taken up again. Raises `TrainingError` naming what went wrong: a loss or gradient that
    is no number, divergence, collapse, a dead discriminator; `InputError` for a state of another run.
    """
    watch = watch or Watch()
    device = device_of(watch.accelerator, watch.devices)
    players = [player for phase in recipe.phases for player in phase.players]
    with reproducible(rng) as noise:
        networks = nn.ModuleList([*(player.network for player in players), recipe.average])
        run = _Run(name, recipe, data.rows.std(dim=0), _held_windows(held), noise, progress)
        mark = _mark(run, networks, data, watch)
        kept = training_state.read(watch.state, mark) if watch.state else None
        if kept is not None:
            networks.load_state_dict(kept["networks"])
            run.restore(kept)
        with _file_of_several(watch) as path:
            turns = _Turns(run, networks, players, data, watch, mark, path)
            _fit(turns, device, kept)
            if watch.devices > 1 and path is not None:  # what the processes have learnt is there, and nowhere else
                done = training_state.read(path, mark) or {}
                networks.load_state_dict(done["networks"])
                run.restore(done)
        recipe.average.load_state_dict(run.weights())
    networks.to("cpu")
    recipe.average.requires_grad_(False).eval()
    progress(run.total, run.total)
    return run.history


@contextmanager
def _file_of_several(watch: Watch) -> Iterator[Path | None]:
    """Yield the file of a run's state: several processes need one in any case."""
    if watch.devices == 1 or watch.state is not None:
        yield watch.state
        return
    with tempfile.TemporaryDirectory(prefix="synth-training-") as folder:
        yield Path(folder, "run.state")


def _held_windows(held: Windows | None) -> Tensor | None:
    """Return some of the held-out windows, evenly spread."""
    return None if held is None else held.spread(_HELD_WINDOWS)


def _mark(run: _Run, networks: nn.ModuleList, data: Windows, watch: Watch) -> str:
    settings = [
        (
            phase.steps,
            p.name,
            p.learning_rate,
            p.updates,
            p.betas,
            p.clip,
            p.rests_below,
            p.weight_decay,
            p.schedule.__name__,
        )
        for phase in run.recipe.phases
        for p in phase.players
    ]
    recipe = run.recipe
    words = (torch.__version__, run.name, recipe.batch, recipe.decay, recipe.seconds, data.length, settings)
    starts = torch.from_numpy(data.starts)
    return training_state.fingerprint(
        [data.rows, starts, run.noise.get_state(), torch.random.get_rng_state(), *networks.state_dict().values()],
        *(words, watch.devices, watch.mixed),
    )


@dataclass
class _Turns:
    """What the Lightning module does with players, optimizers and the file that a run is kept in."""

    run: _Run
    networks: nn.ModuleList
    players: list[Player]
    data: Windows
    watch: Watch
    mark: str
    path: Path | None
    written: float = field(default_factory=time.monotonic)

    def take(self, module: Any, optimizers: list[Any], step: tuple[int, list[tuple[int, float]]]) -> None:
        """Make the updates of one step."""
        phase, updates = step
        if rank():
            self.run.draw_apart(rank())
        losses: dict[str, float] = {}
        for at, share in updates:
            losses[self.players[at].name] = self.update(module, self.players[at], optimizers[at], share)
        self.run.finish_step(phase, losses)
        if self.watch.on_losses is not None and not rank():
            self.watch.on_losses(self.run.history.steps, losses)
        self.keep(optimizers, self.watch.every_seconds)

    def update(self, module: Any, player: Player, optimizer: Any, share: float) -> float:
        """Move one player down its loss and return it."""
        module.toggle_optimizer(optimizer)
        optimizer.param_groups[0]["lr"] = player.learning_rate * share
        batch = self.data.batch(self.run.recipe.batch, self.run.noise).to(module.device)
        loss = player.loss(batch, self.run.noise)
        optimizer.zero_grad()
        module.manual_backward(loss)
        norm = nn.utils.clip_grad_norm_(player.network.parameters(), player.clip)
        found = mean(loss.item(), module.device)
        self.run.check(player, found, float(norm))
        if player.rests_below is None or found >= player.rests_below:
            optimizer.step()
        module.untoggle_optimizer(optimizer)
        return found

    def keep(self, optimizers: list[Any], every_seconds: float) -> None:
        """Write the run's state when it is time."""
        if self.path is None or rank() or time.monotonic() - self.written < every_seconds:
            return
        states = [optimizer.optimizer.state_dict() for optimizer in optimizers]
        known = {"fingerprint": self.mark, "networks": self.networks.state_dict(), "optimizers": states}
        training_state.write(self.path, self.run.state() | known)
        self.written = time.monotonic()


def _fit(turns: _Turns, device: torch.device, kept: dict[str, Any] | None) -> None:
    import pytorch_lightning as lightning
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    class Module(lightning.LightningModule):
        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__()
            self.networks = turns.networks

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [
                torch.optim.AdamW(
                    p.network.parameters(), p.learning_rate, p.betas, weight_decay=p.weight_decay, fused=True
                )
                for p in turns.players
            ]

        def all_optimizers(self) -> list[Any]:
            optimizers = self.optimizers()
            return optimizers if isinstance(optimizers, list) else [optimizers]

        def on_train_start(self) -> None:
            run = turns.run
            run.average.to(self.device)
            run.held = None if run.held is None else run.held.to(self.device)
            if kept is not None:
                for optimizer, state in zip(self.all_optimizers(), kept["optimizers"], strict=True):
                    optimizer.optimizer.load_state_dict(state)

        def training_step(self, step: tuple[int, list[tuple[int, float]]], _: int) -> None:
            turns.take(self, self.all_optimizers(), step)
            self.trainer.should_stop = turns.run.overfits

        def on_train_end(self) -> None:
            turns.keep(self.all_optimizers(), 0.0)

    class Schedule:
        """The steps to come."""

        def __iter__(self) -> Iterator[tuple[int, list[tuple[int, float]]]]:
            return turns.run.updates()

    # With several players those whose turn it is not have no gradient; with one, looking for such is a warning.
    together = "ddp_fork_find_unused_parameters_true" if len(turns.players) > 1 else "ddp_fork"
    with _quiet(), alarms():
        trainer = lightning.Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=turns.watch.devices,
            strategy=together if turns.watch.devices > 1 else "auto",
            precision="bf16-mixed" if turns.watch.mixed and device.type == "cuda" else "32-true",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[LightningEnvironment()],
        )
        trainer.fit(Module(), train_dataloaders=Schedule())

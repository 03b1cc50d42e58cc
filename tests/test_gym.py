"""The Gymnasium environment: the library's own check, seeds, episodes, rewards that add up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth_pipeline.errors import InputError
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.market.latency import Latency
from synth_pipeline.market.scenarios import staging

gymnasium = pytest.importorskip("gymnasium")
from gymnasium.utils.env_checker import check_env  # noqa: E402 - only where it is installed

from synth_pipeline.market.gym import MarketEnv  # noqa: E402

FLOW = ZeroIntelligence.example()
NOTHING = np.array([0, 0, 0, 0, 0])


def env_of(**how: Any) -> MarketEnv:
    return MarketEnv(FLOW, **({"horizon_s": 5.0, "step_s": 0.1} | how))


def episode(env: MarketEnv, seed: int, actions: list[np.ndarray]) -> list[Any]:
    observation, info = env.reset(seed=seed)
    found: list[Any] = [[part.tolist() for part in observation.values()], info]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        found.append([[part.tolist() for part in observation.values()], reward, terminated, truncated, info])
    return found


def actions_of(env: MarketEnv, number: int) -> list[np.ndarray]:
    env.action_space.seed(5)
    return [env.action_space.sample() for _ in range(number)]


@pytest.mark.parametrize("latency", [None, Latency.of(2_000_000, 0.5)])
def test_it_passes_the_check_of_the_library(latency: Latency | None) -> None:
    check_env(env_of(latency=latency, inventory_penalty=0.1), skip_render_check=True)


def test_one_seed_is_one_episode() -> None:
    env, other = env_of(latency=Latency.of(10**6, 0.5)), env_of(latency=Latency.of(10**6, 0.5))
    actions = actions_of(env, 30)
    first = episode(env, 3, actions)
    episode(env, 4, actions[:7])
    assert episode(env, 3, actions) == first == episode(other, 3, actions)
    assert episode(other, 4, actions) != first
    env.reset(seed=3)
    unseeded = [env.reset()[0]["book"].tolist() for _ in range(2)]
    assert len(unseeded) == 2
    assert env.step(NOTHING)[0]["book"].tolist() != first[2][0][0]


def test_rewards_add_up_to_wealth_less_the_penalty() -> None:
    env = env_of(inventory_penalty=0.5, latency=Latency.of(10**6, 0.5))
    _, info = env.reset(seed=1)
    rewards, penalties = 0.0, 0.0
    for action in actions_of(env, 50):
        _, reward, terminated, truncated, info = env.step(action)
        rewards, penalties = rewards + reward, penalties + 0.5 * info["position"] ** 2 * 0.1
        assert abs(info["position"]) <= 100
    assert truncated
    assert not terminated
    assert penalties > 0
    assert rewards == pytest.approx(info["cash"] + info["position"] * info["mid"] - penalties)


def test_actions_become_quotes_and_what_stays_keeps_its_place() -> None:
    env = env_of(offsets=(0, 3), sizes=(2, 4))
    observation, _ = env.reset(seed=2)
    book = observation["book"]
    quote = np.array([2, 2, 0, 1, 0])
    observation, *_ = env.step(quote)
    agent, session = env._agent, env._session
    assert session is not None
    assert sorted((order.side, order.left) for order in agent.orders.values()) == [(0, 2), (1, 4)]
    prices = {order.side: order.price for order in agent.orders.values()}
    bid, ask = book[0, 0, 0] + 10_000.5, book[1, 0, 0] + 10_000.5
    assert prices == {0: bid - 3, 1: ask + 3}
    assert observation["orders"][:, 1].tolist() == [2, 4]
    ahead = session.queue_ahead(agent)
    while [each.tolist() for each in agent.book(1)] and len(set(prices.values())) == 2:
        best = [int(side[0, 0]) for side in agent.book(1)]
        if best != [bid, ask]:
            break
        env.step(quote)
        later = session.queue_ahead(agent)
        assert all(later[order] <= ahead[order] for order in later if order in ahead)
        ahead = later
    env.step(NOTHING)
    assert not agent.orders


def test_market_orders_trade_and_inventory_has_a_limit() -> None:
    env = env_of(sizes=(7,), most_lots=10)
    env.reset(seed=2)
    *_, info = env.step(np.array([0, 0, 0, 0, 1]))
    assert info["position"] == 7
    *_, info = env.step(np.array([0, 0, 0, 0, 1]))
    assert info["position"] == 10
    observation, *_, info = env.step(np.array([1, 1, 0, 0, 1]))
    assert info["position"] == 10
    assert observation["orders"][0].tolist() == [0, 0]


def test_a_breakdown_terminates_and_is_told() -> None:
    flow = ZeroIntelligence.example()
    env = MarketEnv(flow, sizes=(10**6,), most_lots=10**7)
    env.reset(seed=1)
    *_, terminated, truncated, info = env.step(np.array([0, 0, 0, 0, 2]))
    assert terminated
    assert not truncated
    assert "no bid is left" in info["breakdown"]
    env.reset(seed=1)
    assert not env.step(NOTHING)[2]


def test_scenarios_are_played_too() -> None:
    env = MarketEnv(staging.under(FLOW, ["one_sided_flow:takes=50,at=0"]), horizon_s=5.0)
    _, info = env.reset(seed=1)
    opened = info["mid"]
    for _ in range(10):
        *_, info = env.step(NOTHING)
    assert info["mid"] < opened - 5


def test_wrong_use_is_named() -> None:
    with pytest.raises(InputError, match="call reset first"):
        env_of().step(NOTHING)
    env = env_of()
    env.reset(seed=1)
    with pytest.raises(InputError, match="outside"):
        env.step(np.array([9, 0, 0, 0, 0]))
    for how in ({"step_s": 9.0}, {"step_s": 0.0}, {"levels": 0}, {"sizes": ()}, {"sizes": (0,)}, {"most_lots": 0}):
        with pytest.raises(InputError, match="an episode needs"):
            env_of(**how)


def test_without_the_library_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['gymnasium'] = None; import synth_pipeline.market.gym"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert "InputError: the market environment needs gymnasium: pip install 'synth-pipeline[gym]'" in done.stderr

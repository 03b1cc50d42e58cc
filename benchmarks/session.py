"""Sessions: how many steps and orders a second a strategy may make, on one core; no bars are set.

An order is a limit order or a modification of one, over jittered links, each with a report; the agent looks at five
levels in every step. Beside it stands the same flow with nobody in it, cut into the same steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from common import Claim, arguments, report

from synth_pipeline.market.book import ASK, BID
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.market.latency import Latency
from synth_pipeline.market.participant import Participant
from synth_pipeline.market.session import Session
from synth_pipeline.rng import stream

STEP_NS, ORDERS = 100_000_000, 10
FLOW = ZeroIntelligence.example()


def session(people: int) -> tuple[Session, list[Participant]]:
    made = Session(FLOW.start(0, rng=stream(1, "benchmark", "run")))
    latency = Latency.of(200_000, 0.3)
    return made, [made.join(f"p{who}", latency, rng=stream(who, "benchmark", "latency")) for who in range(people)]


def steps(number: int, people: int, orders: int) -> Callable[[], None]:
    """Return a run of steps in which every participant sends so many orders."""

    def run() -> None:
        made, everybody = session(people)
        ladders = [[0] * orders for _ in everybody]
        for _ in range(number):
            for who, ladder in zip(everybody, ladders, strict=True):
                act(who, ladder)
            made.step(made.now_ns + STEP_NS)

    return run


def act(who: Participant, ladder: list[int]) -> None:
    """Look at the book; move every rung of a ladder of quotes on both sides, and put new ones where some have gone."""
    seen, known = who.book(5), who.orders
    for rung, order in enumerate(ladder):
        side = BID if rung % 2 else ASK
        price = int(seen[side][0, 0]) + (2 * side - 1) * (rung // 2)
        if order in known:
            who.modify(order, price, 3 - known[order].left % 2)
        else:
            ladder[rung] = who.submit(side, price, 2)


def per_second(number: int, run: Callable[[], None]) -> float:
    run()  # compiles
    started = time.process_time()
    run()
    return number / (time.process_time() - started)


def environment_steps(number: int) -> float | None:
    """Return steps of the environment a second with drawn actions, or None where Gymnasium is not installed."""
    try:
        import gymnasium  # noqa: F401
    except ImportError:
        return None
    from synth_pipeline.market.gym import MarketEnv

    env = MarketEnv(FLOW, horizon_s=60.0, step_s=0.1, latency=Latency.of(200_000, 0.3))
    env.action_space.seed(1)

    def run() -> None:
        env.reset(seed=1)
        for _ in range(number):
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()

    return per_second(number, run)


def measured(*, quick: bool) -> list[Claim]:
    number = 500 if quick else 5000
    one, alone = per_second(number, steps(number, 1, ORDERS)), per_second(number, steps(number, 1, 0))
    three = per_second(number, steps(number, 3, ORDERS))
    environment = environment_steps(number)
    note = "no bar is set"
    return [
        Claim(
            "session_steps_per_s",
            f"steps of 100 ms with {ORDERS} orders and a look at the book, zero intelligence, per core",
            one,
            0.0,
            "high",
            {"without an order": alone, f"three participants with {ORDERS} orders each": three},
            note,
        ),
        Claim("session_orders_per_s", "orders in such steps, each with a report", one * ORDERS, 0.0, "high", {}, note),
        Claim(
            "gym_steps_per_s",
            "steps of the Gymnasium environment, drawn actions",
            environment,
            0.0,
            "high",
            {},
            note if environment is not None else "gymnasium is not installed: pip install 'synth-pipeline[gym]'",
        ),
    ]


def main() -> None:
    options = arguments(__doc__).parse_args()
    report("session", measured(quick=options.quick), as_json=options.json)


if __name__ == "__main__":
    main()

"""Order flow: who sends what to the book, and when.

Five crowds act at random times, each at its own rate:

- *makers* place limit orders at the touch, most at the most aggressive price that does not trade, none beyond the
  efficient price by more than the threshold; faster while the spread is wide; each cancels after an exponential time;
- *patient traders* place behind the touch at power-law distances, P(distance > x) = (1 + x / scale)^-exponent, and
  cancel after a longer exponential time, so cancellations are proportional to what rests (power law of placement:
  Bouchaud, Mézard, Potters 2002, "Statistical properties of stock order books");
- *uninformed takers* send market orders as a bivariate Hawkes process, rate of side i
  λ_i(t) = μ a(t) + Σ_j Σ_{t_j < t} n_ij β exp(-β (t - t_j)), so buys beget buys and, less, sells (Hawkes 1971; Bacry,
  Mastromatteo, Muzy 2015, "Hawkes processes in finance");
- *informed takers* act only when the efficient price lies further from the mid than the threshold: they send an order
  that trades up to it, the further the sooner;
- makers then *pull* quotes that the efficient price has overtaken.

The mid thus follows the efficient price in steps of about the threshold, which leaves many short returns at zero and
the others with the volatility's clusters and tails. Part of the variance runs in business time, at the pace of the
uninformed orders (Clark 1973, "A subordinated stochastic process model"): busy seconds are volatile seconds. All sizes
are log-normal. Rates see the efficient price of the current step of `STEP_S`; the decay of the Hawkes rates is met
exactly, by thinning (Ogata 1981).

Here belong decisions; what an order does is the engine's affair, how it is published the exchange's.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.errors import InputError
from synth_pipeline.market.efficient_price import PriceLaw, advance_price, start_state
from synth_pipeline.market.engine import (
    ASK,
    BID,
    Book,
    Journal,
    cancel,
    find,
    front,
    limit,
    move_band,
    new_book,
)
from synth_pipeline.market.engine import market as send_market
from synth_pipeline.market.parameters import Parameters
from synth_pipeline.market.tape import has_room, new_tape, record, rewind
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray

STEP_S = 0.02
"""Longest time, in seconds, over which rates are held."""

_MAKER, _PATIENT = 0, 1
_CROWD_CAPACITY = 2**13
"""Orders that one crowd may have resting."""
_SPARE_ROWS = 8
"""Rows that one event may need beside those of the orders it meets and refills."""
_LARGEST_ORDER = 10**9
"""Lots; keeps a log-normal tail inside the integers."""

_FEWEST_TICKS = 1000
"""A price of fewer ticks leaves no room for the depth of a bid side."""

_MAKE, _REST, _CANCEL, _TAKE, _INFORMED, _PULL = 0, 2, 4, 6, 8, 10
"""Kinds of event; each has two rates, of side `BID` and `ASK` (of the two crowds for `_CANCEL`)."""
_KINDS = 12


class FlowLaw(NamedTuple):
    """The parameters as the compiled loop needs them: ticks, lots, seconds, natural logs."""

    tick_size: float
    touch_rate: float
    touch_step: float
    """Probability that a maker stands one tick further away."""
    spread_response_rate: float
    depth_rate: float
    depth_scale: float
    depth_exponent: float
    cancel_rates: tuple[float, float]
    """Per resting order: makers', patient traders'."""
    order_size: tuple[float, float]
    """Mean and standard deviation of the log size in lots."""
    market_rate: float
    excitation_jumps: tuple[float, float]
    """Rise of the own side's and of the other side's rate by one market order."""
    excitation_decay: float
    branching_ratio: float
    business_time_share: float
    market_size: tuple[float, float]
    informed_threshold: float
    """Relative to the price."""
    informed_rate: float
    informed_size: tuple[float, float]
    pull_rate: float
    intraday_amplitude: float
    intraday_peak_s: float
    minimum_orders: int


class Market(NamedTuple):
    """A running simulation: a `tape.Market` and, behind it, all that the crowds know."""

    book: Book
    journal: Journal
    tape: np.recarray
    clock: np.recarray
    price: FloatArray
    """Log efficient price and log-volatility deviation."""
    excitation: FloatArray
    """Hawkes rates above the base, of buys and of sells."""
    crowd_ids: IntArray
    """Orders that a crowd has not cancelled, shape (2, capacity); traded ones leave when they are drawn."""
    crowd_sizes: IntArray
    rates: FloatArray
    """Scratch: rate of each kind of event."""


def flow_law(parameters: Parameters) -> FlowLaw:
    """Turn market units into what the loop needs."""
    lot = float(parameters.lot_size)
    decay = math.log(2) / parameters.excitation_half_life_s
    return FlowLaw(
        tick_size=float(parameters.tick_size),
        touch_rate=parameters.touch_rate,
        touch_step=parameters.touch_offset_ticks / (1 + parameters.touch_offset_ticks),
        spread_response_rate=parameters.spread_response_rate,
        depth_rate=parameters.depth_rate,
        depth_scale=parameters.depth_scale_ticks,
        depth_exponent=parameters.depth_exponent,
        cancel_rates=(1 / parameters.touch_lifetime_s, 1 / parameters.depth_lifetime_s),
        order_size=(math.log(parameters.order_size_median / lot), parameters.order_size_log_sd),
        market_rate=parameters.market_rate,
        excitation_jumps=(parameters.self_excitation * decay, parameters.cross_excitation * decay),
        excitation_decay=decay,
        branching_ratio=parameters.branching_ratio,
        business_time_share=parameters.business_time_share,
        market_size=(math.log(parameters.market_size_median / lot), parameters.market_size_log_sd),
        informed_threshold=parameters.informed_threshold_bp * 1e-4,
        informed_rate=parameters.informed_rate,
        informed_size=(math.log(parameters.informed_size_median / lot), parameters.market_size_log_sd),
        pull_rate=parameters.pull_rate,
        intraday_amplitude=parameters.intraday_amplitude,
        intraday_peak_s=parameters.intraday_peak_hour * 3600,
        minimum_orders=parameters.minimum_orders,
    )


def new_market(
    start_ns: int, parameters: Parameters, price: PriceLaw, law: FlowLaw, rng: np.random.Generator
) -> Market:
    """Return a market whose book holds as many patient orders as it will on average.

    Raises `InputError` when the parameters want more resting orders than fit, or a price of too few ticks.
    """
    centre = round(parameters.start_price / law.tick_size)
    if centre < _FEWEST_TICKS:
        raise InputError(
            f"start_price {parameters.start_price:g} is {centre} ticks of {parameters.tick_size}: "
            f"choose a tick_size that makes it at least {_FEWEST_TICKS}"
        )
    patient = 2 * parameters.depth_rate * parameters.depth_lifetime_s
    makers = 2 * (parameters.touch_rate + parameters.spread_response_rate) * parameters.touch_lifetime_s
    # At the crest of the day half of the places are taken on average, so the other half is room for chance.
    most = _CROWD_CAPACITY / 2 / (1 + parameters.intraday_amplitude)
    for orders, crowd in ((patient, "depth"), (makers, "touch")):
        if orders > most:
            raise InputError(
                f"{crowd} orders would number about {orders:.0f}: lower {crowd}_rate or {crowd}_lifetime_s "
                f"so that they stay below {most:.0f}"
            )
    market = Market(
        *new_tape(new_book(centre), start_ns),
        price=start_state(parameters, price, rng),
        excitation=np.zeros(2),
        crowd_ids=np.zeros((2, _CROWD_CAPACITY), dtype=np.int64),
        crowd_sizes=np.zeros(2, dtype=np.int64),
        rates=np.zeros(_KINDS),
    )
    _fill_book(market, law, centre, round(patient / 2), rng)
    return market


@njit(cache=True)
def advance(market: Market, price: PriceLaw, law: FlowLaw, until_ns: int, rng: np.random.Generator) -> bool:
    """Run whole steps until the clock reads `until_ns` or later; the result does not depend on how often it is called.

    Returns False when it stopped early because the tape or journal is full: `rewind` them and call again.
    """
    clock = market.clock[0]
    while True:
        sides = market.book.sides
        if not has_room(market, sides[BID].orders + sides[ASK].orders + 2 * law.minimum_orders + _SPARE_ROWS):
            return False
        activity = _activity(law, clock.now_ns)
        if clock.now_ns == clock.step_end_ns:
            if clock.now_ns >= until_ns:
                return True
            advance_price(market.price, price, activity * _pace(market, law, activity), STEP_S, rng)
            _follow_band(market)
            clock.step_end_ns += int(STEP_S * NS_PER_SECOND)
        total = _set_rates(market, law, activity)
        wait = rng.standard_exponential() / total
        left = (clock.step_end_ns - clock.now_ns) / NS_PER_SECOND
        elapsed = min(wait, left)
        decay = math.exp(-law.excitation_decay * elapsed)
        market.excitation[0] *= decay
        market.excitation[1] *= decay
        if wait >= left:
            clock.now_ns = clock.step_end_ns
            continue
        clock.now_ns = min(clock.now_ns + int(wait * NS_PER_SECOND) + 1, clock.step_end_ns - 1)
        _act(market, law, activity, _draw_kind(market.rates, total, rng), rng)


@njit(cache=True)
def _fill_book(market: Market, law: FlowLaw, centre: int, orders: int, rng: np.random.Generator) -> None:
    for side in range(2):
        _place(market, _MAKER, side, centre - 1 + 2 * side, _draw_size(law.order_size, rng))
    for _ in range(orders):
        for side in range(2):
            _rest(market, law, side, rng)
    rewind(market)


@njit(cache=True)
def _activity(law: FlowLaw, now_ns: int) -> float:
    """Return the shape of the day, 1 on average."""
    hours_off = (now_ns % NS_PER_DAY) / NS_PER_SECOND - law.intraday_peak_s
    return 1.0 + law.intraday_amplitude * math.cos(2.0 * math.pi * hours_off / 86_400)


@njit(cache=True)
def _pace(market: Market, law: FlowLaw, activity: float) -> float:
    """Return the volatility multiple of business time: trading faster than on average, the price moves faster."""
    base = law.market_rate * activity
    rate = base + 0.5 * (market.excitation[BID] + market.excitation[ASK])
    return math.sqrt(1.0 - law.business_time_share * (1.0 - rate / base * (1.0 - law.branching_ratio)))


@njit(cache=True)
def _fair_ticks(market: Market, law: FlowLaw) -> float:
    return math.exp(market.price[0]) / law.tick_size


@njit(cache=True)
def _set_rates(market: Market, law: FlowLaw, activity: float) -> float:
    """Set the rate of every kind of event and return their sum."""
    rates, book = market.rates, market.book
    bid, ask = book.sides[BID].best, book.sides[ASK].best
    fair, mid = _fair_ticks(market, law), 0.5 * (bid + ask)
    excess = (fair / mid - 1.0) / law.informed_threshold
    for side in range(2):
        rates[_MAKE + side] = law.touch_rate * activity
        if ask - bid > 1:
            rates[_MAKE + side] += law.spread_response_rate
        rates[_REST + side] = law.depth_rate * activity
        rates[_CANCEL + side] = law.cancel_rates[side] * market.crowd_sizes[side]
        rates[_TAKE + side] = law.market_rate * activity + market.excitation[side]
        # The efficient price above the mid makes informed traders buy, and asks leave that it has overtaken.
        beyond = excess if side == BID else -excess
        overtaken = fair > ask if side == BID else fair < bid
        rates[_INFORMED + side] = law.informed_rate * beyond if beyond > 1.0 else 0.0
        rates[_PULL + 1 - side] = law.pull_rate if beyond > 1.0 and overtaken else 0.0
    return float(rates.sum())


@njit(cache=True)
def _draw_kind(rates: FloatArray, total: float, rng: np.random.Generator) -> int:
    level = rng.random() * total
    for kind in range(_KINDS):
        level -= rates[kind]
        if level < 0.0:
            return kind
    return _KINDS - 1


@njit(cache=True)
def _act(market: Market, law: FlowLaw, activity: float, kind: int, rng: np.random.Generator) -> None:
    """Let one event of a kind happen, then refill what it emptied."""
    side, kind = kind % 2, kind - kind % 2
    if kind == _MAKE:
        _make(market, law, side, rng)
    elif kind == _REST:
        _rest(market, law, side, rng)
    elif kind == _CANCEL:
        _cancel_any(market, law, side, rng)
    elif kind == _TAKE:
        # Thinning: the rate that was held since the last event has decayed meanwhile.
        now = law.market_rate * activity + market.excitation[side]
        if rng.random() * market.rates[_TAKE + side] < now:
            _take(market, law, side, rng)
    elif kind == _INFORMED:
        _trade_informed(market, law, side, rng)
    else:
        _pull(market, law, side)
    for thin in range(2):
        for _ in range(law.minimum_orders - market.book.sides[thin].orders):
            _rest(market, law, thin, rng)


@njit(cache=True)
def _draw_size(log_size: tuple[float, float], rng: np.random.Generator) -> int:
    drawn = math.exp(log_size[0] + log_size[1] * rng.standard_normal())
    return max(1, int(min(drawn, _LARGEST_ORDER) + 0.5))


@njit(cache=True)
def _make(market: Market, law: FlowLaw, side: int, rng: np.random.Generator) -> None:
    """Quote at the touch, or inside a wide spread, but not past the efficient price by more than the threshold."""
    behind = 0
    while rng.random() < law.touch_step:
        behind += 1
    fair, sides = _fair_ticks(market, law), market.book.sides
    reserve = fair * law.informed_threshold
    if side == BID:
        price = min(sides[ASK].best - 1 - behind, math.floor(fair + reserve))
    else:
        price = max(sides[BID].best + 1 + behind, math.ceil(fair - reserve))
    _place(market, _MAKER, side, price, _draw_size(law.order_size, rng))


@njit(cache=True)
def _rest(market: Market, law: FlowLaw, side: int, rng: np.random.Generator) -> None:
    """Place patiently, behind the touch."""
    distance = law.depth_scale * ((1.0 - rng.random()) ** (-1.0 / law.depth_exponent) - 1.0)
    away = 1 + int(min(distance, _LARGEST_ORDER))
    price = market.book.sides[side].best + (2 * side - 1) * away
    _place(market, _PATIENT, side, price, _draw_size(law.order_size, rng))


@njit(cache=True)
def _place(market: Market, crowd: int, side: int, price: int, lots: int) -> None:
    """Send a limit order, at the nearest price of the band, and remember whose it is."""
    book = market.book
    if market.crowd_sizes[crowd] == market.crowd_ids.shape[1]:
        _forget_traded(market, crowd)
    if market.crowd_sizes[crowd] == market.crowd_ids.shape[1]:
        return
    low = book.state[0].low
    order_id = limit(book, market.journal, side, min(max(price, low), low + book.levels.shape[1] - 1), lots)
    if order_id > 0:
        if find(book, order_id) != 0:
            market.crowd_ids[crowd, market.crowd_sizes[crowd]] = order_id
            market.crowd_sizes[crowd] += 1
        record(market, market.clock[0].now_ns)


@njit(cache=True)
def _forget_traded(market: Market, crowd: int) -> None:
    kept = 0
    for place in range(market.crowd_sizes[crowd]):
        order_id = market.crowd_ids[crowd, place]
        if find(market.book, order_id) != 0:
            market.crowd_ids[crowd, kept] = order_id
            kept += 1
    market.crowd_sizes[crowd] = kept


@njit(cache=True)
def _cancel_any(market: Market, law: FlowLaw, crowd: int, rng: np.random.Generator) -> None:
    """Cancel one order of a crowd, each as likely as any other; one that has traded is only forgotten."""
    book, ids, last = market.book, market.crowd_ids[crowd], market.crowd_sizes[crowd] - 1
    drawn = min(int(rng.random() * (last + 1)), last)
    order_id = ids[drawn]
    slot = find(book, order_id)
    if slot != 0 and book.sides[book.orders[slot].side].orders <= law.minimum_orders:
        return
    ids[drawn] = ids[last]
    market.crowd_sizes[crowd] = last
    if slot != 0:
        cancel(book, market.journal, order_id)
        record(market, market.clock[0].now_ns)


@njit(cache=True)
def _pull(market: Market, law: FlowLaw, side: int) -> None:
    if market.book.sides[side].orders > law.minimum_orders:
        cancel(market.book, market.journal, front(market.book, side))
        record(market, market.clock[0].now_ns)


@njit(cache=True)
def _take(market: Market, law: FlowLaw, side: int, rng: np.random.Generator) -> None:
    size = min(_draw_size(law.market_size, rng), market.book.sides[1 - side].lots // 2)
    if size > 0:
        send_market(market.book, market.journal, side, size)
        market.excitation[side] += law.excitation_jumps[0]
        market.excitation[1 - side] += law.excitation_jumps[1]
        record(market, market.clock[0].now_ns)


@njit(cache=True)
def _trade_informed(market: Market, law: FlowLaw, side: int, rng: np.random.Generator) -> None:
    """Trade up to the efficient price; what remains quotes there."""
    fair = _fair_ticks(market, law)
    price = math.floor(fair) if side == BID else math.ceil(fair)
    size = min(_draw_size(law.informed_size, rng), market.book.sides[1 - side].lots // 2)
    if size > 0:
        _place(market, _MAKER, side, price, size)


@njit(cache=True)
def _follow_band(market: Market) -> None:
    """Centre the price band again once the market has left its middle half."""
    book, width = market.book, market.book.levels.shape[1]
    mid = (book.sides[BID].best + book.sides[ASK].best) // 2
    if abs(mid - book.state[0].low - width // 2) > width // 4 and move_band(book, market.journal, mid) > 0:
        record(market, market.clock[0].now_ns)

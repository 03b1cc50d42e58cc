"""`Parameters`: every dial of the simulated market, in market units.

Here belong the numbers and what makes them admissible; what they do stands in the modules that read them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal

from synth_pipeline.errors import InputError


@dataclass(frozen=True)
class Parameters:
    """A liquid linear perpetual; the defaults resemble BTCUSDT at a calm pace.

    Raises `InputError` for a negative number, an impossible share or an explosive excitation.
    """

    tick_size: Decimal = Decimal("0.1")
    """Quote currency."""
    lot_size: Decimal = Decimal("0.001")
    """Base currency."""
    start_price: float = 60_000.0
    """Efficient price when the simulation starts, quote currency."""

    annual_volatility: float = 0.5
    """Root mean square of the efficient price's diffusion, per square root of a 365-day year."""
    log_volatility_sd: float = 0.55
    """Stationary standard deviation of the log of that volatility."""
    volatility_half_life_s: float = 180.0
    """Seconds until half of a volatility shock is forgotten."""
    jumps_per_day: float = 48.0
    """Jumps of the efficient price."""
    jump_scale_bp: float = 5.0
    """Mean absolute size of a jump (Laplace distributed), basis points."""

    touch_rate: float = 7.0
    """Orders per second and side that makers place at the touch."""
    touch_offset_ticks: float = 0.3
    """Mean distance (geometric) that they keep from the most aggressive price."""
    touch_lifetime_s: float = 1.5
    """Mean seconds until such an order is cancelled."""
    spread_response_rate: float = 40.0
    """Further orders per second and side while the spread is wider than one tick."""
    depth_rate: float = 2.5
    """Orders per second and side that patient traders place behind the touch."""
    depth_scale_ticks: float = 1500.0
    """Distance from the touch at which the power law of their placement bends."""
    depth_exponent: float = 2.0
    """Exponent of that power law: P(distance > x) = (1 + x / scale) ** -exponent."""
    depth_lifetime_s: float = 300.0
    """Mean seconds until such an order is cancelled."""
    order_size_median: float = 0.25
    """Base currency; sizes of limit orders are log-normal."""
    order_size_log_sd: float = 1.3
    """Standard deviation of the log size."""

    market_rate: float = 0.35
    """Uninformed market orders per second and side that no other order excites."""
    self_excitation: float = 0.6
    """Further market orders of its own side that one market order causes, on average."""
    cross_excitation: float = 0.15
    """The same of the other side."""
    excitation_half_life_s: float = 1.5
    """Seconds until half of an excitation is forgotten."""
    business_time_share: float = 0.7
    """Share of the efficient price's variance that runs in proportion to the rate of uninformed market orders."""
    market_size_median: float = 0.02
    """Base currency; sizes of market orders are log-normal."""
    market_size_log_sd: float = 1.7
    """Standard deviation of the log size."""
    informed_threshold_bp: float = 0.9
    """Distance of the efficient price from the mid below which acting on it does not pay, basis points."""
    informed_rate: float = 15.0
    """Informed orders per second beyond the threshold; grows in proportion to the distance."""
    informed_size_median: float = 0.5
    """Base currency; their log size spreads as that of market orders."""
    pull_rate: float = 250.0
    """Cancellations per second of a touch that lies beyond the threshold on the wrong side of the efficient price."""

    intraday_amplitude: float = 0.25
    """Relative height of the daily cosine that scales volatility and all rates of arrival."""
    intraday_peak_hour: float = 15.0
    """UTC hour of its crest."""
    minimum_orders: int = 20
    """Orders that each side keeps: cancellations stop and refills start there."""

    diff_interval_ms: int = 100
    """Depth changes are published on this clock."""
    publish_delay_ms: float = 0.6
    """Mean milliseconds (geometric) between an event and its publication: E - T."""
    latency_median_ms: float = 9.0
    """From publication to receipt; latencies are log-normal, messages of the connection arrive in the order sent."""
    latency_log_sd: float = 0.35
    """Standard deviation of the log latency."""
    snapshot_after_ms: int = 430
    """The depth snapshot shows the book this long after the start."""
    snapshot_latency_ms: int = 400
    """It takes this long to arrive, so that buffered changes overtake it."""
    snapshot_levels: int = 1000
    """Levels a side in the snapshot."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) >= 0:
                raise InputError(f"{field.name} is {getattr(self, field.name)}: it must be zero or more")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be positive")
        if self.branching_ratio >= 1:
            raise InputError(
                f"one market order excites {self.branching_ratio:g} others: "
                "self_excitation + cross_excitation must be below 1"
            )
        if self.intraday_amplitude >= 1:
            raise InputError(f"intraday_amplitude is {self.intraday_amplitude}: it must be below 1")
        if self.business_time_share > 1:
            raise InputError(f"business_time_share is {self.business_time_share}: it must be at most 1")

    @property
    def branching_ratio(self) -> float:
        """Market orders that one market order causes directly, on either side; below 1 the flow is stationary."""
        return self.self_excitation + self.cross_excitation


_POSITIVE = (
    "tick_size",
    "lot_size",
    "start_price",
    "volatility_half_life_s",
    "touch_rate",
    "touch_lifetime_s",
    "depth_scale_ticks",
    "depth_exponent",
    "depth_lifetime_s",
    "order_size_median",
    "market_rate",
    "excitation_half_life_s",
    "market_size_median",
    "informed_threshold_bp",
    "informed_size_median",
    "minimum_orders",
    "diff_interval_ms",
    "latency_median_ms",
    "snapshot_levels",
)

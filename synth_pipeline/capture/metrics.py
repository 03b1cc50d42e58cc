"""The figures of a recording at `/metrics`, in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from synth_pipeline.capture.figures import Figures
from synth_pipeline.errors import InputError

_COUNTERS = {
    "messages": "messages received",
    "bytes": "bytes of messages received",
    "file_bytes": "compressed bytes written",
    "gaps": "holes in the venue's ids",
    "snapshots": "depth snapshots received",
    "snapshot_failures": "depth snapshots that failed or came too late",
    "connects": "connections opened",
    "connect_failures": "attempts to connect that failed",
    "disconnects": "connections lost",
    "handovers": "connections replaced before the venue's cut",
    "stalls": "connections given up as silent",
    "duplicates": "messages left out as copies of another connection's",
    "repeated": "messages that came again on one connection",
    "garbage": "messages of no form that the venue has",
    "answers": "messages about none of the symbols asked for",
    "refusals": "requests that the venue refused",
    "dropped": "messages that the disk was too slow for",
    "clock_steps": "steps of the wall clock",
}


class _Figures(Collector):
    def __init__(self, figures: Figures, venue: str) -> None:
        self._figures, self._venue = figures, venue

    def collect(self) -> Iterator[Metric]:
        """Read the figures as they are now."""
        figures = self._figures
        for name, what in _COUNTERS.items():
            yield self._one(CounterMetricFamily, name, what, getattr(figures, name))
        yield self._one(GaugeMetricFamily, "held_bytes", "bytes that wait for the disk", figures.held_bytes)
        yield self._one(GaugeMetricFamily, "disk_lag_seconds", "age of what is written", figures.disk_lag_seconds)
        if figures.offset_ns is not None:
            yield self._one(
                GaugeMetricFamily, "clock_offset_seconds", "local minus venue clock, estimated", figures.offset_ns / 1e9
            )
        lag = GaugeMetricFamily("synth_recorder_lag_seconds", "receive minus event", labels=["venue", "quantile"])
        for quantile in (0.5, 0.99):
            value = figures.lag_ms(quantile)
            if value is not None:
                lag.add_metric([self._venue, str(quantile)], value / 1e3)
        yield lag

    def _one(self, family: type[Any], name: str, what: str, value: float) -> Metric:
        metric: Metric = family(f"synth_recorder_{name}", what, labels=["venue"])
        metric.add_metric([self._venue], value)  # type: ignore[attr-defined]
        return metric


def serve(figures: Figures, venue: str, port: int) -> int:
    """Serve `/metrics` on loopback from a thread; return the port, which 0 leaves to the system.

    Raises `InputError` when the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(_Figures(figures, venue))
    try:
        server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise InputError(f"port {port} cannot be served ({error.strerror}): give another --metrics-port") from None
    return int(server.server_port)

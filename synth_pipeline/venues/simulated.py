"""The embedded market: a seeded simulated venue that speaks the Binance USD-M wire format."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.venues.binance_usdm import BinanceUsdm as _WireFormat


class Simulated(_WireFormat):
    """Simulated order flow (`synth_pipeline.market`) on the wire of Binance USD-M; no network, any symbol."""

    websocket_url: ClassVar[str] = "ws://127.0.0.1:9443"
    rest_url: ClassVar[str] = "http://127.0.0.1:9443"

    def path_of(self, stream: str) -> str:  # noqa: ARG002 - all on one
        """One path serves all streams."""
        return self.websocket_path

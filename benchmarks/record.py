"""The figures of recording: rate and loss over loopback, `kill -9`, injected faults, decoding and the sequence check.

Each part stands in a file of its own (`record_rate`, `record_faults`, `record_decode`) that says how it measures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import record_decode
import record_faults
import record_rate
from common import Claim, arguments, report


def claims(*, quick: bool) -> list[Claim]:
    """Measure everything, one part after the other."""
    rate = record_rate.rate(4 if quick else 60)
    kills = record_rate.kills(2 if quick else 20)
    faults = record_faults.faults(quick)
    return [*_rate(rate), *_kills(kills), *_faults(faults), *_decode(quick=quick)]


def _rate(found: dict[str, float]) -> list[Claim]:
    peers = {
        "memory growth, MB": found["memory_growth_mb"],
        "CPU a message, µs": found["cpu_us_per_message"],
        "bytes a message": found["bytes_per_message"],
    }
    sent = f"{found['sent']:,.0f} sent"
    return [
        Claim("record_rate", "messages/s over loopback", found["messages_per_second"], 40_000, "high", peers),
        Claim("record_lost", "messages sent and not recorded", found["lost"], 0, "equal", note=sent),
    ]


def _kills(found: dict[str, float]) -> list[Claim]:
    note = f"{found['kills']:.0f} kills, {found['torn_tails']:.0f} torn tails cut"
    return [
        Claim(
            "kill_loss_seconds", "worst loss at a random kill -9, s", found["worst_loss_seconds"], 1, "low", note=note
        ),
        Claim("kill_unreadable", "files that cannot be read afterwards", found["unreadable"], 0, "equal"),
    ]


def _faults(found: dict[str, Any]) -> list[Claim]:
    kinds = ", ".join(f"{name} {tally}" for name, tally in found["found_of"].items())
    sources = ", ".join(found["clean_sources"])
    return [
        Claim("fault_recall", "injected faults found", found["fault_recall"], 1, "equal", note=kinds),
        Claim("false_alarms", "faults reported where there is none", found["false_alarms"], 0, "equal", note=sources),
    ]


def _decode(*, quick: bool) -> list[Claim]:
    """Beside the check over columns, which ingestion does, stands the recorder's own, message by message."""
    decode, sequence = record_decode.claims(quick=quick)
    live = record_rate.sequence_rate(300_000 if quick else 3_000_000)
    return [decode, replace(sequence, peers={**sequence.peers, "live, message by message": live})]


if __name__ == "__main__":
    given = arguments(__doc__).parse_args()
    report("record", claims(quick=given.quick), as_json=given.json)

"""What every benchmark shares: a claim and its bar, interleaved rounds, and the one JSON document a script prints."""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

Goal = Literal["high", "low", "equal"]
_MEETS: dict[Goal, Callable[[float, float], bool]] = {"high": operator.ge, "low": operator.le, "equal": operator.eq}


@dataclass(frozen=True)
class Claim:
    """One figure beside the bar that it was meant to reach."""

    id: str
    what: str
    value: float | None
    """None when it could not be measured; `note` says why."""
    bar: float
    goal: Goal
    peers: Mapping[str, float] = field(default_factory=dict)
    """Other figures of the same run, by name."""
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the bar was reached."""
        return self.value is not None and _MEETS[self.goal](self.value, self.bar)


def interleaved(methods: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each method, run in turn so that other load on the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            started = time.perf_counter()
            method()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> dict[str, Any]:
    """Describe the machine that the figures are of."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--quick", action="store_true", help="a short form, under 50 seconds")
    return parser


def report(benchmark: str, claims: list[Claim], *, as_json: bool) -> None:
    """Print the claims; what falls short is printed as it is."""
    if as_json:
        found = [asdict(claim) | {"met": claim.met} for claim in claims]
        print(json.dumps({"benchmark": benchmark, "machine": machine(), "claims": found}, indent=2))
        return
    for claim in claims:
        value = "not measured" if claim.value is None else f"{claim.value:,.4g}"
        sign = {"high": "≥", "low": "≤", "equal": "="}[claim.goal]
        print(
            f"{claim.id:28} {value:>14}  bar {sign} {claim.bar:<10g} {'met' if claim.met else 'NOT MET':8} {claim.what}"
        )
        for name, peer in claim.peers.items():
            print(f"{'':28} {peer:>14,.4g}  {name}")
        if claim.note:
            print(f"{'':28} {claim.note}")

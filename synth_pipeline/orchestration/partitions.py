"""The cells of the graph: instrument × UTC day. Dagster allows two dimensions, so the instrument holds the venue."""

import warnings
from datetime import date

import dagster as dg

from synth_pipeline.schema import Instrument, parse_day
from synth_pipeline.settings import Settings

INSTRUMENTS = dg.DynamicPartitionsDefinition(name="instrument")
DAYS = dg.DailyPartitionsDefinition(start_date=Settings().first_day.isoformat(), end_offset=1)
"""Up to and including today: a day is usable while it is still being recorded."""
CELLS = dg.MultiPartitionsDefinition({"instrument": INSTRUMENTS, "day": DAYS})


def cell(instrument: Instrument, day: date) -> dg.MultiPartitionKey:
    """Return the partition key of one cell."""
    return dg.MultiPartitionKey({"instrument": str(instrument), "day": day.isoformat()})


def cells_of(context: dg.AssetExecutionContext) -> list[dg.MultiPartitionKey]:
    """Return the keys of the cells that a step works on."""
    keys = list(context.partition_keys)
    return [key if isinstance(key, dg.MultiPartitionKey) else _parsed(key) for key in keys]


def _parsed(key: str) -> dg.MultiPartitionKey:
    return CELLS.get_partition_key_from_str(key)


def instrument_and_day(key: dg.MultiPartitionKey) -> tuple[Instrument, date]:
    """Return the cell that a key names."""
    keys = key.keys_by_dimension
    return Instrument.parse(keys["instrument"]), parse_day(keys["day"])


def days_back(days: int) -> dg.MultiPartitionMapping:
    """Map a cell to the same instrument's last `days` days, its own included; days before the first are left out."""
    with warnings.catch_warnings():
        # Both are marked beta in dagster 1.13; a change of theirs would fail test_orchestration.
        warnings.filterwarnings("ignore", "Parameter `allow_nonexistent_upstream_partitions`", dg.BetaWarning)
        warnings.filterwarnings("ignore", "Class `MultiPartitionMapping`", dg.BetaWarning)
        window = dg.TimeWindowPartitionMapping(
            start_offset=1 - days, end_offset=0, allow_nonexistent_upstream_partitions=True
        )
        return dg.MultiPartitionMapping(
            {
                "instrument": dg.DimensionPartitionMapping("instrument", dg.IdentityPartitionMapping()),
                "day": dg.DimensionPartitionMapping("day", window),
            }
        )

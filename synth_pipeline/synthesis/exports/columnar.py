"""A dataset as Arrow batches, for formats that are columns: `path`, `time` (ns, UTC), the features as float64.

What nobody knows stays NaN. The metadata say the step, the grids, the batch and what the dataset was made with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from synth_pipeline.synthesis.dataset import ROW_GROUP, Rows
from synth_pipeline.synthesis.exports import Source


def schema(source: Source) -> pa.Schema:
    """Return the schema of every batch."""
    made = source.dataset
    facts = {"step_ns": made.step_ns, "tick_size": made.tick_size, "lot_size": made.lot_size, "about": made.about}
    facts |= {"assets": [asdict(asset) for asset in made.assets], "batch": source.batch}
    keys = [("path", pa.int64()), ("time", pa.timestamp("ns", "UTC"))]
    metadata = {name: json.dumps(fact, sort_keys=True) for name, fact in facts.items()}
    return pa.schema(keys + [(name, pa.float64()) for name in made.names], metadata)


def batches(source: Source, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows, `ROW_GROUP` or somewhat more at a time however short the paths are."""
    waiting: list[Rows] = []
    count = 0
    for rows in source.scan():
        waiting.append(rows)
        count += len(rows.values)
        if count >= ROW_GROUP:
            yield _batch(waiting, wanted)
            waiting, count = [], 0
    if waiting:
        yield _batch(waiting, wanted)


def _batch(pieces: list[Rows], wanted: pa.Schema) -> pa.RecordBatch:
    paths = np.repeat([rows.path for rows in pieces], [len(rows.values) for rows in pieces])
    times = pa.array(np.concatenate([rows.label_ns for rows in pieces])).cast(wanted.field("time").type)
    values = np.concatenate([rows.values for rows in pieces]).T.copy()
    return pa.RecordBatch.from_arrays([pa.array(paths), times, *map(pa.array, values)], schema=wanted)

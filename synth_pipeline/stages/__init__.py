"""The verbs: record, bars, ingest, featurize, fit, sample, evaluate. Plain functions on files, one partition a call.

This is the only place where domain packages meet. A verb drafts a manifest from what it depends on, returns the old
one at once when nothing changed (`skipped`), and otherwise builds the partition aside and commits it whole.
"""

from synth_pipeline.stages.bars import bars_from_file, bars_from_source, resample_bars
from synth_pipeline.stages.days import ingest_days, recorded_days
from synth_pipeline.stages.exports import export
from synth_pipeline.stages.features import feature_series, featurize
from synth_pipeline.stages.history import parse_cell
from synth_pipeline.stages.models import Scenario, evaluate, fit, load_generator, sample
from synth_pipeline.stages.raw import identify, known_venues, record
from synth_pipeline.stages.summary import summary
from synth_pipeline.stages.ticks import ingest
from synth_pipeline.stages.upkeep import compact, quarantine, verify
from synth_pipeline.stages.workspace import Workspace

__all__ = [
    "Scenario",
    "Workspace",
    "bars_from_file",
    "bars_from_source",
    "compact",
    "evaluate",
    "export",
    "feature_series",
    "featurize",
    "fit",
    "identify",
    "ingest",
    "ingest_days",
    "known_venues",
    "load_generator",
    "parse_cell",
    "quarantine",
    "record",
    "recorded_days",
    "resample_bars",
    "sample",
    "summary",
    "verify",
]

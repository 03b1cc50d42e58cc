"""The verbs: record, bars, ingest, featurize, fit, sample, evaluate, promote, calibrate, simulate.

Plain functions on files, one partition a call.

This is the only place where domain packages meet. A verb drafts a manifest from what it depends on, returns the old
one at once when nothing changed (`skipped`), and otherwise builds the partition aside and commits it whole.
"""

from synth_pipeline.stages.bars import bars_from_file, bars_from_source, resample_bars
from synth_pipeline.stages.book_reports import compare_books
from synth_pipeline.stages.calibrate import calibrate
from synth_pipeline.stages.codes import code_versions
from synth_pipeline.stages.days import ingest_days, recorded_days
from synth_pipeline.stages.diagnosis import doctor
from synth_pipeline.stages.exports import export
from synth_pipeline.stages.features import feature_series, featurize
from synth_pipeline.stages.file_reports import Files, evaluate_files, rendered, write_report
from synth_pipeline.stages.history import parse_cell
from synth_pipeline.stages.leaderboard import compare_datasets, leaderboard
from synth_pipeline.stages.models import Scenario, evaluate, fit, load_generator, sample
from synth_pipeline.stages.nights import Night, day_is_current, models_are_current, night
from synth_pipeline.stages.promotion import promote
from synth_pipeline.stages.raw import identify, known_venues, record
from synth_pipeline.stages.reproduction import bundle, reproduce
from synth_pipeline.stages.retention import gc
from synth_pipeline.stages.simulate import Simulation, days_of, load_flow, simulate, simulate_days
from synth_pipeline.stages.summary import summary
from synth_pipeline.stages.tick_exports import export_ticks
from synth_pipeline.stages.ticks import ingest
from synth_pipeline.stages.upkeep import compact, quarantine, verify
from synth_pipeline.stages.workspace import Workspace

__all__ = [
    "Files",
    "Night",
    "Scenario",
    "Simulation",
    "Workspace",
    "bars_from_file",
    "bars_from_source",
    "bundle",
    "calibrate",
    "code_versions",
    "compact",
    "compare_books",
    "compare_datasets",
    "day_is_current",
    "days_of",
    "doctor",
    "evaluate",
    "evaluate_files",
    "export",
    "export_ticks",
    "feature_series",
    "featurize",
    "fit",
    "gc",
    "identify",
    "ingest",
    "ingest_days",
    "known_venues",
    "leaderboard",
    "load_flow",
    "load_generator",
    "models_are_current",
    "night",
    "parse_cell",
    "promote",
    "quarantine",
    "record",
    "recorded_days",
    "rendered",
    "reproduce",
    "resample_bars",
    "sample",
    "simulate",
    "simulate_days",
    "summary",
    "verify",
    "write_report",
]

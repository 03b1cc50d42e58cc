"""The verbs: record, ingest, featurize, fit, sample, evaluate. Plain functions on plain files, one partition a call.

This is the only place where domain packages meet. A verb drafts a manifest from what it depends on, returns the old
one at once when nothing changed (`skipped`), and otherwise builds the partition aside and commits it whole.
"""

from synth_pipeline.stages.features import feature_series, featurize
from synth_pipeline.stages.models import evaluate, fit, load_generator, sample
from synth_pipeline.stages.raw import identify, known_venues, record
from synth_pipeline.stages.summary import summary
from synth_pipeline.stages.ticks import ingest
from synth_pipeline.stages.workspace import Workspace

__all__ = [
    "Workspace",
    "evaluate",
    "feature_series",
    "featurize",
    "fit",
    "identify",
    "ingest",
    "known_venues",
    "load_generator",
    "record",
    "sample",
    "summary",
]

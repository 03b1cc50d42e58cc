"""Versions of the code behind every kind of partition, as manifests record them."""

from __future__ import annotations

from synth_pipeline.lineage.digests import code_version
from synth_pipeline.stages import features, leaderboard, models, promotion, raw, ticks


def code_versions(generator: str | None = None) -> dict[str, str]:
    """Return the version of each verb's code by its name; those of a generator when one is named."""
    if generator is None:
        sources: dict[str, tuple[str, ...]] = {
            "record": (*raw.IMPORT_SOURCES, *raw.SIMULATION_SOURCES),
            "ingest": ticks.SOURCES,
            "featurize": features.SOURCES,
            "leaderboard": leaderboard.SOURCES,
        }
    else:
        sources = {
            "fit": models.fit_sources(generator),
            "sample": models.sample_sources(generator),
            "evaluate": models.evaluate_sources(generator),
            "promote": promotion.SOURCES,
        }
    return {verb: code_version(*names) for verb, names in sources.items()}

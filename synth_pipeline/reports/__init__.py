"""Reports: one self-contained HTML page from a fidelity record.

`evaluate` takes series, frames or arrays and returns a `Report`; `page.render` makes the page. It works offline,
prints, follows the reader's light or dark setting, and asks the network for nothing. Figures draw what the record
holds and compute no statistic; every statistic belongs to `fidelity`.
"""

from synth_pipeline.reports.report import Report, evaluate
from synth_pipeline.reports.tables import Reading

__all__ = ["Reading", "Report", "evaluate"]

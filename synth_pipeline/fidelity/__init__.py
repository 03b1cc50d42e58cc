"""Fidelity: how close a synthetic series is to real ones, every number beside what real data score against real data.

ONE FUNCTION = ONE METRIC; a file of metrics is a family (`marginal`, `temporal`, `weighted`, `copying`; `dependence` of
several assets). A new metric is one decorated function, a new family one new file; nothing else is edited. `evaluate`
makes the whole record, `registry` lists what there is. How a record looks on paper belongs to `reports`.
"""

MACHINERY = frozenset(
    {
        "book_comparison",
        "book_prediction",
        "book_sample",
        "book_scores",
        "bootstrap",
        "checklists",
        "comparison",
        "distributions",
        "evaluate",
        "evaluation",
        "exhibits",
        "floors",
        "grade",
        "impact",
        "joint",
        "kernels",
        "learned_scores",
        "learners",
        "metric",
        "moments",
        "neighbours",
        "order_book",
        "panels",
        "proximity",
        "recurrent",
        "registry",
        "results",
        "sample",
        "scoring",
        "stress",
        "splits",
        "trading_rules",
        "ts2vec",
        "usefulness",
        "validity",
        "verdicts",
        "windows",
    }
)
"""Files here that are shared machinery, not families of metrics."""

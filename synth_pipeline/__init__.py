"""synth_pipeline: raw exchange captures to synthetic markets worth trusting.

    >>> import synth_pipeline as sp
    >>> settings = sp.Settings()
    >>> sp.ingest(settings, sp.Instrument.parse("binance_usdm.BTCUSDT"), date(2024, 8, 8))  # doctest: +SKIP

The verbs are the functions of `synth_pipeline.stages`; importing this package loads no torch, dagster or mlflow.
"""

__version__ = "0.1.0"

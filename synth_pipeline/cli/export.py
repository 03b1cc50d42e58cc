"""From a dataset to files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synth_pipeline.cli.face import CellName, InstrumentName, Json, app, opened_workspace, out, print_json
from synth_pipeline.schema import Instrument


@app.command(
    epilog="Examples: synth-pipeline export file.SP500 1d block_bootstrap --to zip --out batches; "
    "synth-pipeline export binance_usdm.BTCUSDT 2024-08-08 garch --to parquet --out btc.parquet --paths 4"
)
def export(
    instrument: InstrumentName,
    cell: CellName,
    dataset: Annotated[
        str, typer.Argument(help="Generator, or GENERATOR@SCENARIO as `sample` names it.", metavar="DATASET")
    ],
    to: Annotated[str, typer.Option(help="csv, xlsx, zip, parquet, arrow, npz or tfrecord; see docs/datasets.md.")],
    target: Annotated[
        Path, typer.Option("--out", help="File to write; of csv, xlsx and zip, which write several, a folder.")
    ],
    paths: Annotated[int | None, typer.Option(min=1, help="Only the first paths; default: all.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that stand there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a synthetic dataset as CSV, Excel, ZIP batches, Parquet, Arrow, NumPy or TFRecord files."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        made = stages.export(
            workspace,
            Instrument.parse(instrument),
            stages.parse_cell(cell),
            dataset,
            to,
            target,
            paths=paths,
            force=force,
        )
    if as_json:
        facts = {"dataset": made.dataset, "format": to, "batch": made.batch, "paths": made.paths, "rows": made.rows}
        print_json(facts | {"files": [str(path) for path in made.files]})
        return
    where = str(target) if len(made.files) == 1 else f"{len(made.files):,} files in {target}"
    out.print(
        f"{made.rows:,} rows of {made.paths:,} paths, batch {made.batch}: {where}", highlight=False, soft_wrap=True
    )

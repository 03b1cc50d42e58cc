"""Looking after the store: verify, compact, quarantine."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from synth_pipeline.cli.face import CellName, InstrumentName, Json, app, err, opened_workspace, out, print_json
from synth_pipeline.schema import Instrument

What = Annotated[
    str | None,
    typer.Argument(help="Stage, INSTRUMENT, INSTRUMENT/DAY or REF; everything when left out.", metavar="WHAT"),
]


@app.command(epilog="Examples: synth-pipeline verify; synth-pipeline verify ticks/binance_usdm.BTCUSDT --json")
def verify(what: What = None, as_json: Json = False) -> None:
    """Rehash stored files and check order, days, counts and values of every table; exit 1 when something is wrong."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        checked = stages.verify(workspace, what)
    problems = {each.ref: list(each.problems) for each in checked if each.problems}
    files, size = sum(each.files for each in checked), sum(each.bytes for each in checked)
    if as_json:
        print_json({"partitions": len(checked), "files": files, "bytes": size, "problems": problems})
    else:
        for ref, texts in problems.items():
            for text in texts:
                out.print(f"[bold]{ref}[/bold]  {text}", highlight=False, soft_wrap=True)
        state = f"{len(problems)} not sound" if problems else "all sound"
        out.print(f"{len(checked)} partitions, {files} files, {size / 1e6:,.1f} MB: {state}", highlight=False)
    if problems:
        err.print("synth-pipeline: the store is damaged: make the partitions named above again", highlight=False)
        raise typer.Exit(1)


@app.command(epilog="Example: synth-pipeline compact binance_usdm.BTCUSDT --dry-run")
def compact(
    what: What = None,
    grace: Annotated[
        float, typer.Option(help="Seconds that a file which nothing names is left alone, for who still reads it.")
    ] = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove files of earlier versions, what crashes left behind, and hot tables whose source is gone."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        found = stages.compact(workspace, what, grace_s=grace, dry_run=dry_run)
    size = sum(each.bytes for each in found)
    if as_json:
        print_json({"removed": [str(each.place) for each in found], "bytes": size, "dry_run": dry_run})
        return
    for each in found:
        out.print(f"  {each.place}", highlight=False, soft_wrap=True)
    verb = "would be removed" if dry_run else "removed"
    out.print(f"{len(found)} files and folders, {size / 1e6:,.1f} MB {verb}", highlight=False)


@app.command(
    epilog="Examples: synth-pipeline gc --older-than 90 --dry-run; "
    "synth-pipeline gc binance_usdm.BTCUSDT --older-than 30 --stage reports --stage synthetic"
)
def gc(
    what: What = None,
    older_than: Annotated[float, typer.Option(help="Days since a partition was made.")] = 90.0,
    stage: Annotated[list[str] | None, typer.Option(help="Only of this stage; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove old partitions, but never one that something which stays was made from."""
    from synth_pipeline import stages
    from synth_pipeline.lineage.manifests import STAGES

    with opened_workspace() as workspace:
        now = datetime.fromtimestamp(time.time_ns() / 1e9, UTC)
        swept = stages.gc(workspace, what, days=older_than, now=now, stages=stage or STAGES, dry_run=dry_run)
    size = sum(each.bytes for each in swept.expired)
    if as_json:
        expired = [each.ref for each in swept.expired]
        kept = {each.ref: each.reason for each in swept.kept}
        print_json({"removed": expired, "bytes": size, "kept": kept, "dry_run": dry_run})
        return
    for each in swept.expired:
        out.print(f"  {each.ref}  {each.bytes / 1e6:,.1f} MB, of {each.created_at}", highlight=False, soft_wrap=True)
    for one in swept.kept:
        out.print(f"  [dim]kept {one.ref}: {one.reason}[/dim]", highlight=False, soft_wrap=True)
    verb = "would be removed" if dry_run else "removed"
    out.print(f"{len(swept.expired)} partitions, {size / 1e6:,.1f} MB {verb}", highlight=False)


@app.command(epilog="Example: synth-pipeline doctor --json")
def doctor(as_json: Json = False) -> None:
    """Look at libraries, machine, disk, store and databases, and say what to do; exit 1 when something is wrong."""
    from dataclasses import asdict

    from synth_pipeline import stages
    from synth_pipeline.settings import Settings

    found = stages.doctor(Settings())
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        table = Table("", "what", "how it is", "what to do")
        marks = {"fine": "[green]fine[/green]", "note": "[yellow]note[/yellow]", "wrong": "[red]wrong[/red]"}
        for each in found:
            table.add_row(marks[each.state], each.name, each.told, each.remedy)
        out.print(table)
    if any(each.state == "wrong" for each in found):
        raise typer.Exit(1)


@app.command(epilog="Example: synth-pipeline quarantine binance_usdm.BTCUSDT 2024-08-08 --reason off_grid")
def quarantine(
    instrument: InstrumentName,
    cell: CellName,
    reason: Annotated[str | None, typer.Option(help="Only what was refused for this reason.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Rows to print; the counts are of all.")] = 20,
    to: Annotated[
        Path | None, typer.Option("--out", help="Write all rows to this file, one JSON object a line.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what was refused of a day of ticks, or of bars: why, how often, and the bytes themselves."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        rows = stages.quarantine(workspace, Instrument.parse(instrument), stages.parse_cell(cell), reason)
    counts = dict(Counter(rows["reason"].tolist()).most_common())
    if to is not None:
        _write(to, rows)
    if as_json:
        print_json({"counts": counts, "rows": [_plain(rows, row) for row in range(min(limit, len(rows["reason"])))]})
        return
    table = Table("reason", "rows")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    out.print(table if counts else "nothing was refused")
    for row in range(min(limit, len(rows["reason"]))):
        shown = _plain(rows, row)
        out.print(
            f"  {shown['time']}  {shown['stream']}  [bold]{shown['reason']}[/bold]  {shown['detail']}", highlight=False
        )
        out.print(f"      {shown['payload'][:160]}", highlight=False, markup=False, soft_wrap=True)


def _plain(rows: dict[str, np.ndarray], row: int) -> dict[str, Any]:
    """Return one row as JSON values; bytes that are no UTF-8 are escaped."""
    time = str(np.datetime64(int(rows["recv_ns"][row]), "ns"))
    texts = {name: str(rows[name][row]) for name in ("stream", "reason", "detail")}
    return {"time": time, **texts, "payload": bytes(rows["payload"][row]).decode("utf-8", "backslashreplace")}


def _write(path: Path, rows: dict[str, np.ndarray]) -> None:
    from synth_pipeline.cli.windows import fresh_file

    with fresh_file(path) as fresh, fresh.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_plain(rows, row)) + "\n" for row in range(len(rows["reason"])))

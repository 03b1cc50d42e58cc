"""The verb `evaluate_files`: any two files of prices, from any tool, as a fidelity report; and reports from records.

CSV and Parquet files, compressed or not, and folders of datasets. Nothing is stored in the workspace: the page and the
record are written where the caller says, with the digests of what they are of.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synth_pipeline import archives
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.lineage.digests import code_version, sha256_file
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import stream
from synth_pipeline.synthesis.dataset import LISTING, read_dataset

if TYPE_CHECKING:
    import polars as pl

    from synth_pipeline.fidelity.evaluate import Families
    from synth_pipeline.reports import Report
    from synth_pipeline.series import Series

_PARQUET = b"PAR1"
_DELIMITERS = ",;\t|"
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "None", "-"]
_MOST_PATHS = 64
_SOURCES = ("series.py", "rng.py", "fidelity", "reports", "features/regimes.py", "stages/file_reports.py")


@dataclass(frozen=True)
class Files:
    """What is compared with what, and what the files do not say."""

    real: Path
    synthetic: Path
    holdout: Path | None = None
    against: Path | None = None
    """Another synthetic file, to be judged beside the first."""
    price: str | None = None
    path: str | None = None
    tick_size: float | None = None
    """Price of one tick; None: the decimal step of the real prices; 0: none."""

    @property
    def named(self) -> dict[str, Path]:
        """Each file by what it is called in messages and provenance."""
        given = {"real": self.real, "synthetic": self.synthetic, "held_out": self.holdout, "against": self.against}
        return {name: path for name, path in given.items() if path}

    def command(self, families: Families = None) -> str:
        """Return the command line that makes the record again."""
        named = families if isinstance(families, str) or families is None else ",".join(families)
        given = {"holdout": self.holdout, "against": self.against, "price": self.price, "path": self.path}
        texts = {name: None if value is None else str(value) for name, value in given.items()}
        texts |= {"tick": None if self.tick_size is None else f"{self.tick_size:g}", "families": named}
        words = ["synth-pipeline", "evaluate", str(self.real), str(self.synthetic)]
        for name, text in texts.items():
            words += [] if text is None else [f"--{name}", text]
        return shlex.join(words)


def evaluate_files(
    files: Files, *, families: Families = None, seed: int = 0, progress: Progress = silent
) -> dict[str, Report]:
    """Score one or two synthetic files against a real one; return the report of each by the file's name.

    The held-out data are the last 30 % of the real ones where none are given. Raises `InputError` for what cannot be
    read or compared, `NoDataError` for a file that is missing or empty.
    """
    from synth_pipeline.reports import evaluate
    from synth_pipeline.reports.tables import Reading, aligned, series_of

    tables = {name: read_table(path) for name, path in files.named.items()}
    _require_columns(files, tables)
    series = {}
    for name, table in tables.items():
        reading = Reading(_if_there(table, files.price), _if_there(table, files.path), files.tick_size)
        series[name] = series_of(table, str(files.named[name]), reading)
    series = aligned(series)
    made = {}
    for role in [each for each in ("synthetic", "against") if each in series]:
        told = provenance(files, role, seed, families)
        drawn = stream(seed, "evaluate_files")
        sides = series["real"], series[role], series.get("held_out")
        report = evaluate(*sides, families=families, rng=drawn, progress=progress, provenance=told)
        made[_called(files, role)] = report
    return made


def _if_there(table: pl.DataFrame | Series, column: str | None) -> str | None:
    """Return a column that was named for all files, in one that has it."""
    return column if column in getattr(table, "columns", ()) else None


def _require_columns(files: Files, tables: Mapping[str, pl.DataFrame | Series]) -> None:
    for option, column in (("--price", files.price), ("--path", files.path)):
        if column is not None and not any(_if_there(table, column) for table in tables.values()):
            known = dict.fromkeys(each for table in tables.values() for each in getattr(table, "columns", ()))
            raise InputError(f"no file has a column {column!r} for {option}: they have {', '.join(known)}")


def _called(files: Files, role: str) -> str:
    """Return the name of a file, with its folder where both have the same."""
    path = files.named[role]
    same = files.against is not None and files.against.name == files.synthetic.name
    return str(path) if same else path.name


def provenance(files: Files, role: str, seed: int, families: Families) -> dict[str, str]:
    """Return where a report on files comes from."""
    command = files.command(families)
    told = {"generator": _called(files, role), "instrument": files.real.name, "seed": str(seed)}
    told |= {"code": code_version(*_SOURCES), "command": f"{command} --to page.html"}
    told |= {"render_again": "synth-pipeline evaluate --render page.json --to page.html"}
    kept = {name: path for name, path in files.named.items() if name not in {"synthetic", "against"} - {role}}
    return told | {f"{name} {path.name}": f"sha256:{_digest(path)}" for name, path in kept.items()}


def _digest(path: Path) -> str:
    return sha256_file(path / LISTING if path.is_dir() else path)


def read_table(path: Path) -> pl.DataFrame | Series:
    """Return a CSV or Parquet file, compressed or not, or a folder of a dataset.

    A CSV file may have commas, semicolons, tabs or bars between its columns, and no header where all it holds are
    numbers. Raises `InputError` for anything else, `NoDataError` for an empty or a missing one.
    """
    if path.is_dir() and (path / LISTING).exists():
        return read_dataset(path, most_paths=_MOST_PATHS)
    if not path.is_file():
        raise NoDataError(f"{path} is no file: name a CSV or Parquet file, or the folder of a dataset")
    with archives.opened(path) as file:
        data = file.read()
    return _parquet(data, path) if data.startswith(_PARQUET) else _csv(data, path)


def _parquet(data: bytes, path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} is a damaged Parquet file ({error}): fetch it again") from error


def _csv(data: bytes, path: Path) -> pl.DataFrame:
    import polars as pl

    from synth_pipeline.bars.sniffing import decode

    text = decode(data)
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        raise NoDataError(f"{path} holds no rows: check the file")
    if "\x00" in first:
        raise InputError(f"{path} is neither a CSV nor a Parquet file: export it as one of them")
    delimiter = max(_DELIMITERS, key=first.count)
    cells = next(csv.reader([first], delimiter=delimiter))
    try:
        return pl.read_csv(
            io.BytesIO(text.encode()),
            separator=delimiter,
            has_header=not all(_is_number(cell) for cell in cells),
            infer_schema_length=None,
            null_values=_MISSING,
        )
    except pl.exceptions.NoDataError as error:
        raise NoDataError(f"{path} holds no rows: check the file") from error
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} is no table ({str(error).splitlines()[0]}): mend or export it again") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True


def write_report(page: Path, made: Mapping[str, Report]) -> Path:
    """Write one report, or two beside each other, as a page, and each record beside it; return the page."""
    page.parent.mkdir(parents=True, exist_ok=True)
    reports = list(made.values())
    if len(reports) == 1:
        reports[0].save(page.with_suffix(".json"))
        page.write_text(reports[0].html(), encoding="utf-8")
        return page
    from synth_pipeline.reports.comparison_page import render

    for number, report in enumerate(reports, start=1):
        report.save(page.with_suffix(f".{number}.json"))
    page.write_text(render({name: each.evaluation for name, each in made.items()}), encoding="utf-8")
    return page


def rendered(records: list[Path], page: Path) -> Path:
    """Write the page of one record, or of two beside each other, from the records alone."""
    from synth_pipeline.reports import Report

    for record in records:
        if not record.is_file():
            raise NoDataError(f"{record} is no file: name the JSON that an evaluation wrote")
    reports = [Report.load(record) for record in records]
    if len(reports) == 1:
        page.write_text(reports[0].html(), encoding="utf-8")
        return page
    from synth_pipeline.reports.comparison_page import render

    named = {
        each.evaluation.provenance.get("generator", path.stem): each.evaluation
        for path, each in zip(records, reports, strict=True)
    }
    page.write_text(render(named), encoding="utf-8")
    return page

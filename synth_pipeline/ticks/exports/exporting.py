"""From a format's name to files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

from synth_pipeline import plugins
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.storage import aside
from synth_pipeline.ticks import exports
from synth_pipeline.ticks.exports import Source, TickExport, Written


def export(source: Source, to: str, folder: Path, *, force: bool = False) -> tuple[list[Path], Written]:
    """Write a stretch of ticks in a format into a folder; return the files and what became of the rows.

    With `force` files of the same names are replaced. Raises `UnknownNameError` for an unknown format, `NoDataError`
    where the day is not in the store, lacks what the format is made of or was not recorded then, `InputError` for
    ticks that the format cannot hold, for files that stand there already and where nothing can be written.
    """
    kind: type[TickExport] = plugins.load(exports, to)
    made = kind()
    if source.levels is not None and not made.has_levels:
        raise InputError(f"{to} files tell every change of the book, not {source.levels} levels: leave out --levels")
    if not source.coverage:
        raise NoDataError(
            f"nothing of {source.instrument} was recorded from {source.start_ns} to {source.end_ns} ns: the recording "
            f"of {source.date} ran {source.day.coverage}"
        )
    files = [folder / name for name in made.names(source)]
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file and {to} writes into a folder: name another one")
    if taken := next((file for file in files if file.exists() and not force), None):
        raise InputError(f"{taken} exists already: choose another folder, or replace it with --force")
    with aside(folder) as place:
        place.mkdir()
        written = made.write(source, place)
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            (place / file.name).replace(file)
    return files, written

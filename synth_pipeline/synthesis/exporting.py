"""Exporting a dataset: from a format's name to files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

from synth_pipeline import plugins
from synth_pipeline.errors import InputError
from synth_pipeline.storage import aside
from synth_pipeline.synthesis import exports
from synth_pipeline.synthesis.exports import Export, Source


def export(source: Source, to: str, out: Path, *, force: bool = False) -> list[Path]:
    """Write a dataset in a format and return the files: `out` itself, or several in the folder `out`.

    With `force` files of the same names are replaced; others in the folder stay in any case. Raises `UnknownNameError`
    for an unknown format, `InputError` where such a file stands already or nothing can be written.
    """
    kind: type[Export] = plugins.load(exports, to)
    made = kind()
    files = [out / name for name in made.names(source)] if kind.is_folder else [out]
    _refuse(kind, to, out, [] if force else files)
    with aside(out) as place:
        if kind.is_folder:
            place.mkdir()
        made.write(source, place)
        if out.is_dir():
            for file in files:
                (place / file.name).replace(file)
        else:
            place.replace(out)
    return files


def _refuse(kind: type[Export], to: str, out: Path, files: list[Path]) -> None:
    """Raise `InputError` for a target that does not suit the format, or files that must not stand there and do."""
    if kind.is_folder and (out.is_file() or out.suffix == kind.suffix):
        raise InputError(f"{to} writes several files and {out} is the name of one: give a folder, such as {out.stem}")
    if not kind.is_folder and out.is_dir():
        raise InputError(
            f"{to} writes one file and {out} is a folder: name one, such as {out / f'dataset{kind.suffix}'}"
        )
    if taken := next((file for file in files if file.exists()), None):
        raise InputError(f"{taken} exists already: choose another name, or replace it with --force")

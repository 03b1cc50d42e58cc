"""A synthetic dataset: a folder of Parquet parts in long form, written and read by streaming at constant memory.

    dataset.json                    names, grids, paths, steps, what it was made with; every part with its rows, its
                                    first and its last [path, step]. Written last: without it there is no dataset
    part-00000.parquet              path (int64), label_ns (int64), then the features (float64, market units; NaN is a
    part-00001.parquet              gap), sorted by (path, step); each but the last holds PART_ROWS rows

Every path has the same number of steps, so row r is step r mod steps of path r div steps, in part r div PART_ROWS.
Readers open what dataset.json names and never list the folder. Columns of several assets are `ASSET:column`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synth_pipeline.errors import InputError, NoDataError, SynthError
from synth_pipeline.generators import PIECE
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import Asset, FloatArray, IntArray, Series

if TYPE_CHECKING:
    import polars as pl

LISTING = "dataset.json"
ROW_GROUP = 65_536
PART_ROWS = 64 * ROW_GROUP
_KEYS = ("path", "label_ns")

Labels = Callable[[IntArray], IntArray]
"""From the numbers of steps, 0 the first of a path, to their labels in ns."""


@dataclass(frozen=True)
class Part:
    """One file of a dataset: its rows, and where the first and the last of them stand."""

    file: str
    rows: int
    first: tuple[int, int]
    """Path and step."""
    last: tuple[int, int]


class Rows(NamedTuple):
    """Consecutive steps of one path: at most `PIECE`, cut at multiples of it."""

    path: int
    step: int
    """Number of the first of them."""
    label_ns: IntArray
    values: FloatArray
    """Shape (steps, features)."""


@dataclass(frozen=True)
class Dataset:
    """What `dataset.json` says, and the way to the rows."""

    names: tuple[str, ...]
    step_ns: int
    tick_size: float
    lot_size: float
    paths: int
    steps: int
    """Of every path."""
    parts: tuple[Part, ...]
    assets: tuple[Asset, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    """What it was made with: generator, seed, scenario."""
    folder: Path = Path()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the listing of a dataset.

        Raises `NoDataError` where there is none, `SynthError` for one that is damaged.
        """
        path = folder / LISTING
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise NoDataError(f"{folder} holds no {LISTING}: give the folder of a dataset, or sample one") from None
        try:
            return replace(msgspec.json.decode(content, type=cls), folder=folder)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SynthError(f"{path} is damaged ({error}): sample it again") from error

    @property
    def rows(self) -> int:
        """Rows over all paths."""
        return self.paths * self.steps

    def head(self, paths: int) -> Self:
        """Return the dataset of the first `paths` paths. Raises `InputError` when it has fewer, or for none."""
        if not 1 <= paths <= self.paths:
            raise InputError(
                f"{paths} paths were asked for and the dataset has {self.paths}: ask for 1 to {self.paths}"
            )
        return replace(self, paths=paths)

    def scan(self) -> Iterator[Rows]:
        """Yield every path after the other, a piece at a time. Raises `SynthError` for a part missing or damaged."""
        blocks = self._blocks()
        labels, values, at = np.empty(0, dtype=np.int64), np.empty((0, len(self.names))), 0
        for path in range(self.paths):
            for step in range(0, self.steps, PIECE):
                stop = at + min(PIECE, self.steps - step)
                while stop > len(labels):
                    more = next(blocks)
                    labels = np.concatenate((labels[at:], more[0]))
                    values = np.concatenate((values[at:], more[1]))
                    at, stop = 0, stop - at
                yield Rows(path, step, labels[at:stop], values[at:stop])
                at = stop

    def _blocks(self) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield labels and values of one row group after the other."""
        for part in self.parts:
            path = self.folder / part.file
            try:
                with pq.ParquetFile(path) as file:
                    if file.metadata.num_rows != part.rows:
                        raise pa.ArrowInvalid(f"{file.metadata.num_rows} rows, not {part.rows}")
                    for group in range(file.num_row_groups):
                        table = file.read_row_group(group, ("label_ns", *self.names), use_threads=False)
                        label, *columns = (column.to_numpy() for column in table.columns)
                        yield label, np.stack(columns, axis=1)
            except (OSError, pa.ArrowException) as error:
                raise SynthError(f"{path} is missing or damaged ({error}): sample it again") from error


def write_dataset(
    folder: Path,
    pieces: Iterable[tuple[int, Series]],
    *,
    labels: Labels | None = None,
    about: Mapping[str, Any] | None = None,
    most_rows: int = 0,
    progress: Progress = silent,
) -> int:
    """Write pieces of paths (0, 1, 2, …, each from its first step on) as a dataset and return the number of rows.

    The bytes do not depend on how paths are cut into pieces. `labels` gives the time of each step where steps are not
    equally spaced; `about` is kept with the data; `most_rows` is what progress counts up to. Raises `InputError` where
    a dataset stands already, `NoDataError` for no pieces, `SynthError` for pieces that do not follow each other.
    """
    if (folder / LISTING).exists():
        raise InputError(f"{folder} holds a dataset already: choose another folder, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    writer, rows = None, 0
    try:
        for path, piece in pieces:
            if writer is None:
                writer = _Writer(folder, piece, dict(about or {}))
            writer.add(path, piece, labels)
            rows += piece.steps
            progress(rows, most_rows, f"sampling path {path + 1}")
        if writer is None:
            raise NoDataError("there are no paths to write: ask for at least one")
        writer.finish()
    finally:
        if writer is not None:
            writer.close()
    return rows


class _Writer:
    """Gathers pieces into row groups and row groups into parts, and writes the listing."""

    def __init__(self, folder: Path, like: Series, about: dict[str, Any]) -> None:
        self.folder, self.like, self.about = folder, like, about
        self.path = self.step = self.steps = self.filled = self.written = 0
        self.keys = np.empty((len(_KEYS), ROW_GROUP), dtype=np.int64)
        self.values = np.empty((len(like.names), ROW_GROUP))
        self.part: pq.ParquetWriter | None = None
        facts = {"step_ns": like.step_ns, "tick_size": like.tick_size, "lot_size": like.lot_size, "about": about}
        facts["assets"] = [asdict(asset) for asset in like.assets]
        metadata = {name: json.dumps(fact, sort_keys=True, allow_nan=False) for name, fact in facts.items()}
        columns = [(name, pa.int64()) for name in _KEYS] + [(name, pa.float64()) for name in like.names]
        self.schema = pa.schema(columns, metadata)

    def add(self, path: int, piece: Series, labels: Labels | None) -> None:
        """Take the next piece."""
        self._follow(path, piece)
        numbers = np.arange(self.step, self.step + piece.steps)
        times = piece.start_ns[0] + (numbers - self.step) * piece.step_ns if labels is None else labels(numbers)
        self.step += piece.steps
        start = 0
        while start < piece.steps:
            stop = min(start + ROW_GROUP - self.filled, piece.steps)
            room = slice(self.filled, self.filled + stop - start)
            self.keys[0, room], self.keys[1, room] = path, times[start:stop]
            self.values[:, room] = piece.values[0, start:stop].T
            self.filled, start = room.stop, stop
            if self.filled == ROW_GROUP:
                self._flush()

    def _follow(self, path: int, piece: Series) -> None:
        """Check that a piece goes on where the one before ended."""
        kind, wanted = (
            (each.names, each.step_ns, each.tick_size, each.lot_size, each.assets) for each in (piece, self.like)
        )
        if piece.paths != 1 or kind != wanted:
            raise SynthError(f"a piece of path {path} has {piece.paths} paths of {kind}: expected one of {wanted}")
        if path == self.path + 1:
            self._end_path()
            self.path, self.step = path, 0
        if path != self.path:
            raise SynthError(f"a piece of path {path} came after path {self.path}: paths are written in order, from 0")

    def _end_path(self) -> None:
        self.steps = self.steps or self.step
        if not self.step or self.step != self.steps:
            raise SynthError(f"path {self.path} has {self.step} steps, path 0 {self.steps}: all must be equally long")

    def _flush(self) -> None:
        """Write the row group, in the part that it belongs to."""
        if self.part is None:
            # Prices and sizes repeat, so that a dictionary halves them; where they do not, Parquet drops it by itself.
            self.part = pq.ParquetWriter(
                self.folder / _part_name(self.written // PART_ROWS),
                self.schema,
                compression="zstd",
                use_dictionary=list(self.like.names),
                column_encoding=dict.fromkeys(_KEYS, "DELTA_BINARY_PACKED"),
            )
        columns = [*self.keys[:, : self.filled], *self.values[:, : self.filled]]
        self.part.write_table(pa.table(columns, schema=self.schema), row_group_size=ROW_GROUP)
        self.written += self.filled
        self.filled = 0
        if self.written % PART_ROWS == 0:
            self.close()

    def close(self) -> None:
        """Close the part that is open."""
        if self.part is not None:
            self.part.close()
            self.part = None

    def finish(self) -> None:
        """Write what is left, and then the listing."""
        self._end_path()
        if self.filled:
            self._flush()
        self.close()
        like = self.like
        listing = Dataset(
            names=like.names,
            step_ns=like.step_ns,
            tick_size=like.tick_size,
            lot_size=like.lot_size,
            paths=self.path + 1,
            steps=self.steps,
            parts=tuple(map(self._part, range(-(-self.written // PART_ROWS)))),
            assets=like.assets,
            about=self.about,
        )
        plain = asdict(listing)
        del plain["folder"]
        fresh = self.folder / f".{LISTING}"
        fresh.write_text(json.dumps(plain, indent=1), encoding="utf-8")
        fresh.replace(self.folder / LISTING)

    def _part(self, number: int) -> Part:
        first, stop = number * PART_ROWS, min((number + 1) * PART_ROWS, self.written)
        return Part(_part_name(number), stop - first, divmod(first, self.steps), divmod(stop - 1, self.steps))


def _part_name(number: int) -> str:
    return f"part-{number:05}.parquet"


def scan_dataset(folder: Path) -> Iterator[tuple[int, Series]]:
    """Yield (number of the path, piece) of a dataset, as a generator streams it; a piece starts at its own label.

    Raises `NoDataError` where there is no dataset, `SynthError` for one that is damaged.
    """
    found = Dataset.open(folder)
    return ((rows.path, _series(found, rows.values[np.newaxis], rows.label_ns[:1])) for rows in found.scan())


def read_dataset(folder: Path, *, most_paths: int | None = None) -> Series:
    """Return a dataset, or its first `most_paths` paths, as one series in memory; raises as `scan_dataset` does."""
    found = Dataset.open(folder)
    if most_paths is not None:
        found = found.head(min(most_paths, found.paths))
    values = np.empty((found.paths, found.steps, len(found.names)))
    starts = np.empty(found.paths, dtype=np.int64)
    for rows in found.scan():
        values[rows.path, rows.step : rows.step + len(rows.values)] = rows.values
        if rows.step == 0:
            starts[rows.path] = rows.label_ns[0]
    return _series(found, values, starts)


def lazy_dataset(folder: Path) -> pl.LazyFrame:
    """Return a dataset as a Polars query over its parts: `path`, `label_ns` and the features."""
    import polars as pl

    found = Dataset.open(folder)
    return pl.scan_parquet([found.folder / part.file for part in found.parts])


def _series(like: Dataset, values: FloatArray, start_ns: IntArray) -> Series:
    return Series(values, like.names, like.step_ns, start_ns, like.tick_size, like.lot_size, like.assets)

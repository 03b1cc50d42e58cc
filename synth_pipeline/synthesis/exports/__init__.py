"""Export formats: ONE FILE = ONE FORMAT that a dataset can be written in for other programs.

A format reads a `Source` as a stream and writes a file, or files into an empty folder; where these stand before they
are whole is not its business (`synthesis/exporting.py`). The same dataset gives the same bytes. Times are those of the
dataset; of bars they are the opens, as everywhere outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import IntArray
from synth_pipeline.synthesis.columns import markets
from synth_pipeline.synthesis.dataset import Dataset, Rows


@dataclass(frozen=True)
class Source:
    """A dataset as an export sees it."""

    dataset: Dataset
    batch: str
    """Names the batch in file names: the same content has the same."""
    opens: Callable[[IntArray], IntArray] | None = None
    """From labels of bars, their ends, to their opens; None: a step before. Grid features are shown at their label."""
    progress: Progress = silent

    @property
    def is_bars(self) -> bool:
        """Whether the rows are bars."""
        return "close" in markets(self.dataset)[0].columns

    def times(self, label_ns: IntArray) -> IntArray:
        """Return the time that a row is shown with."""
        if not self.is_bars:
            return label_ns
        return label_ns - self.dataset.step_ns if self.opens is None else self.opens(label_ns)

    def scan(self, note: str = "exporting", *, lap: int = 0, laps: int = 1) -> Iterator[Rows]:
        """Yield the rows with the times that they are shown with; a format that reads them `laps` times says so."""
        done, total = lap * self.dataset.rows, laps * self.dataset.rows
        for rows in self.dataset.scan():
            yield rows._replace(label_ns=self.times(rows.label_ns))
            done += len(rows.values)
            self.progress(done, total, note)

    def by_path(self, note: str = "exporting", *, lap: int = 0, laps: int = 1) -> Iterator[tuple[int, Iterator[Rows]]]:
        """Yield the rows of each path."""
        return groupby(self.scan(note, lap=lap, laps=laps), key=lambda rows: rows.path)

    def file_name(self, path: int, suffix: str) -> str:
        """Return the name of one path's file: paths are counted from 1."""
        return f"synthetic_{path + 1}_batch_{self.batch}{suffix}"


class Export(ABC):
    """One format."""

    suffix: ClassVar[str]
    """Of the files that it writes."""
    is_folder: ClassVar[bool] = False
    """Whether it writes several files into a folder."""

    def names(self, source: Source) -> list[str]:
        """Return the names of the files that `write` makes in a folder: one a path."""
        return [source.file_name(path, self.suffix) for path in range(source.dataset.paths)]

    @abstractmethod
    def write(self, source: Source, place: Path) -> None:
        """Write a file at `place`, or files into the empty folder `place`, at constant memory."""


CONTRACT = Export
MACHINERY = frozenset({"columnar", "sheet"})

"""The market simulator: a matching engine, the order flow that feeds it, and the venue that publishes it.

Here belongs what makes and matches orders. What a simulated market is used for (datasets, scores) does not: outside, it
is one more venue, and its frames go through the same recorder, parser and tables as any other's.
"""

from contextlib import suppress
from pathlib import Path


def _drop_stale_kernels() -> None:
    """Remove compiled kernels that are older than any source here.

    numba's cache looks at the file of the cached function only. The kernels here call each other across files, so an
    update of one file would go on running the old code of another: same version, other bytes.
    """
    folder = Path(__file__).parent
    newest = max(path.stat().st_mtime for path in folder.rglob("*.py"))
    for entry in folder.rglob("*.nb[ic]"):
        with suppress(FileNotFoundError):  # another process may be removing the same ones
            if entry.stat().st_mtime < newest:
                entry.unlink()


_drop_stale_kernels()

"""Where data lie: a local folder, or a prefix of an object store that fsspec knows, such as `s3://bucket/prefix`.

What belongs here: turning an address into a place, whole objects and ranges of bytes in and out, a store's refusals as
one line, and a path aside for local files that are to appear whole. A local folder is a plain `Path` and stays one;
nothing here slows it. Of a remote store three things are asked: a put makes an object appear whole or not at all, a get
after a put sees it, and ranges can be read. S3, GCS and Azure promise this. Nothing is listed, save by a person's
search (`lineage.references`).
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from synth_pipeline.errors import InputError, SynthError

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = "Path | UPath"
"""A folder or file: local, or of a remote store."""

_LOCAL = ("file://", "local://")
_AGAIN = "delete the manifest beside it and make it again"
_ALL = 2**40
_CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google"}
"""Packages whose exceptions are not of Python's own kinds."""


@lru_cache(maxsize=64)
def place_of(address: str) -> Place:
    """Return the place that an address names: a path, a `file://` URL, or the URL of a remote store.

    Raises `InputError` for a protocol that nobody knows, a library that is not installed, a URL without a bucket.
    """
    protocol, separator, rest = address.partition("://")
    if not separator or address.startswith(_LOCAL):
        return Path(rest or protocol).expanduser().resolve()
    from upath import UPath

    try:
        # What lies in a store changes under us: an earlier answer about it says nothing.
        place = UPath(address, use_listings_cache=False)
        place.fs  # noqa: B018 - made now, so that what it lacks is said now
    except ImportError as error:
        extra = "pip install synth-pipeline[s3]" if protocol in {"s3", "s3a"} else str(error)
        raise InputError(f"data at {address} need a library that is not installed: {extra}") from error
    except ValueError as error:
        raise InputError(f"data at {address}: no storage is called {protocol!r}; use a folder or s3://…") from error
    if not rest.strip("/"):
        raise InputError(f"data at {address!r} name no bucket: write {protocol}://BUCKET/PREFIX")
    return place


def read(place: Place) -> bytes | None:
    """Return the content of a file, None when there is none."""
    try:
        if isinstance(place, Path):
            return place.read_bytes()
        with _refusals(place, "read"):
            # Asked for a range, clients send one request; asked for all, they look for the size first.
            return bytes(place.fs.cat_file(place.path, start=0, end=_ALL))
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def opened(place: Place) -> Iterator[BufferedReader]:
    """Open a file to be read from its beginning on."""
    if isinstance(place, Path):
        with place.open("rb") as file:
            yield file
    else:
        with _refusals(place, "read"), place.open("rb") as file:
            yield cast("BufferedReader", file)


def size(place: Place) -> int | None:
    """Return how many bytes a file has, None when there is none."""
    if isinstance(place, Path):
        return place.stat().st_size if place.is_file() else None
    try:
        with _refusals(place, "read"):
            found = place.fs.info(place.path)
    except FileNotFoundError:
        return None
    return int(found["size"]) if found["type"] == "file" else None


def sizes(folder: Place, paths: Sequence[str]) -> list[int | None]:
    """Return the `size` of each of some files of a folder; of a remote one they are asked for at once."""
    if not isinstance(folder, Path):
        try:
            with _refusals(folder, "read"):
                return [int(each) for each in folder.fs.sizes([(folder / path).path for path in paths])]
        except FileNotFoundError:
            pass  # which one is not said
    return [size(folder / path) for path in paths]


def ranges(place: UPath, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the bytes of half-open ranges of an object, fetched at once.

    Raises `SynthError` when the object is missing or shorter than they reach.
    """
    starts, ends = zip(*spans, strict=True)
    try:
        with _refusals(place, "read"):
            found = place.fs.cat_ranges([place.path] * len(spans), list(starts), list(ends), on_error="raise")
    except FileNotFoundError as error:
        raise SynthError(f"{place} is missing: {_AGAIN}") from error
    if any(len(part) != end - start for part, start, end in zip(found, starts, ends, strict=True)):
        raise SynthError(f"{place} is cut short: {_AGAIN}")
    return [bytes(part) for part in found]


def put(place: UPath, content: bytes) -> None:
    """Write an object whole: it is there with this content, or as it was."""
    with _refusals(place, "write"):
        place.fs.pipe_file(place.path, content)


def upload(source: Path, place: UPath) -> None:
    """Copy a local file to an object that appears when it is whole."""
    with _refusals(place, "write"):
        place.fs.put_file(str(source), place.path)


def download(place: UPath, target: Path) -> None:
    """Copy an object to a local file. Raises `SynthError` when it is missing."""
    try:
        with _refusals(place, "read"):
            place.fs.get_file(place.path, str(target))
    except FileNotFoundError as error:
        raise SynthError(f"{place} is missing: {_AGAIN}") from error


def below(place: UPath, name: str) -> Iterator[str]:
    """Yield, sorted, the paths relative to a place of all objects below it that have a name: for a person's search."""
    with _refusals(place, "list"):
        found = sorted(place.fs.find(place.path))
    top = place.path.rstrip("/") + "/"
    yield from (path.removeprefix(top) for path in found if path.endswith(f"/{name}"))


def entries(place: UPath) -> dict[str, tuple[int, int]]:
    """Return size and time of the last write, in ns, of all objects below a place, by relative path: for upkeep."""
    with _refusals(place, "list"):
        found = place.fs.find(place.path, detail=True)
        top = place.path.rstrip("/") + "/"
        return {path.removeprefix(top): (int(each["size"]), _written_ns(place, path)) for path, each in found.items()}


def changed_ns(place: Place) -> int:
    """Return when a file was last written, in ns; 0 when there is none."""
    try:
        if isinstance(place, Path):
            return place.stat().st_ctime_ns
        with _refusals(place, "read"):
            return _written_ns(place, place.path)
    except FileNotFoundError:
        return 0


def _written_ns(place: UPath, path: str) -> int:
    return int(place.fs.modified(path).timestamp() * 1e9)


def remove(place: UPath) -> None:
    """Remove an object; that it is gone already is no error."""
    try:
        with _refusals(place, "write"):
            place.fs.rm_file(place.path)
    except FileNotFoundError:
        pass


@contextmanager
def _refusals(place: UPath, doing: str) -> Iterator[None]:
    """Say in one line why a store refused. `FileNotFoundError` passes when it is the object that is missing."""
    failed = f"cannot {doing} {place}"
    try:
        yield
    except FileNotFoundError as error:
        if "bucket" not in str(error.__cause__).lower():
            raise
        raise InputError(f"{failed}: its bucket is not there; make it, or change SYNTH_DATA_URL") from error
    except PermissionError as error:
        # S3 answers so for an object that is not there, too, where listing the bucket is not allowed.
        remedy = "the credentials must allow to get, put and list objects"
        raise InputError(f"{failed}: no permission ({error}); {remedy}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EINVAL and "range" in str(error):
            raise SynthError(f"{place} is cut short: {_AGAIN}") from error
        own = isinstance(error, OSError | NotImplementedError)
        if not own and type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        lacks_key = "Credentials" in type(error).__name__
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile" if lacks_key else "check it, try again"
        raise InputError(f"{failed}: {' '.join(str(error).split())}; {remedy}") from error


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """Yield a path of the same file system that nobody looks at, and remove what is left there afterwards.

    Raises `InputError` where nothing can be written.
    """
    staging = out.parent / f".{out.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        staging.mkdir(parents=True)
        yield staging / out.name
    except OSError as error:
        raise InputError(
            f"cannot write {out}: {error.strerror or error}; make room, or choose another place"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)

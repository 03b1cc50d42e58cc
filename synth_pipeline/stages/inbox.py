"""The inbox: which days of which instruments are due, given the files that lie there.

A look at the inbox is cheap: names, sizes and times of all files; content only of new ones that have come to rest, a
bounded number of bytes each time. What was found out is the caller's to keep (`State`, a text); a file is looked
through once, refused once, and asked for once, until it changes.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Self

from synth_pipeline.archives import rawlog
from synth_pipeline.archives.rawlog import SILENCE_NS
from synth_pipeline.errors import SynthError
from synth_pipeline.lineage.digests import sha256_json
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument, day_of, day_start_ns
from synth_pipeline.settings import Settings
from synth_pipeline.stages.holdings import Holding, by_content, by_name
from synth_pipeline.stages.raw import known_venues

_UNFINISHED = (".part", ".tmp", ".crdownload", ".partial", ".download", "~")
"""Endings that browsers, copiers and editors give to files that are not whole yet."""
LOOK_BYTES = 64 << 20
"""Content read in one look; a larger file is looked through elsewhere (`look_through`)."""
REQUESTS = 50
"""Days asked for in one look; the rest come with the next."""
_SAMPLE = 1 << 16
_ANSWERS = "inbox-answers"
"""Folder of the home with what was found out about large files."""
Stamp = tuple[int, int]
"""Size and modification time (ns) of a file."""
Cell = tuple[str, str]
"""Instrument and day."""


@dataclass
class State:
    """What earlier looks have found out."""

    resting: dict[str, Stamp] = field(default_factory=dict)
    """Files as last seen, that had not come to rest by then."""
    known: dict[str, tuple[Stamp, Holding]] = field(default_factory=dict)
    """Files that were looked through."""
    refused: dict[str, tuple[Stamp, int, str]] = field(default_factory=dict)
    """Files of no use, how many lay in the folder then, and why: what was missing may have come with another file."""
    asked: dict[str, str] = field(default_factory=dict)
    """Key of the last request, by cell."""

    def to_text(self) -> str:
        """Return it as ASCII text."""
        return base64.b85encode(zlib.compress(json.dumps(asdict(self)).encode())).decode()

    @classmethod
    def from_text(cls, text: str | None) -> Self:
        """Read back what `to_text` wrote; nothing, or another form, is no knowledge."""
        if not text:
            return cls()
        try:
            stored = json.loads(zlib.decompress(base64.b85decode(text)))
            return cls(
                {name: (stamp[0], stamp[1]) for name, stamp in stored["resting"].items()},
                {name: ((s[0], s[1]), Holding(*held)) for name, (s, held) in stored["known"].items()},
                {name: ((s[0], s[1]), count, reason) for name, (s, count, reason) in stored["refused"].items()},
                stored["asked"],
            )
        except (ValueError, KeyError, TypeError, IndexError, zlib.error):
            return cls()


class Request(NamedTuple):
    """One day of one instrument that is due."""

    instrument: Instrument
    day: date
    sources: list[Path]
    key: str
    """Digest of the cell and of its files' names, sizes and times."""


@dataclass
class Look:
    """What one look found."""

    state: State
    requests: list[Request] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)
    """Refused now, with the reason; what was refused before, for the same reason, is not repeated."""
    large: list[tuple[str, Path]] = field(default_factory=list)
    """Files for `look_through`, relative to the inbox, and where their answers belong."""
    waiting: dict[str, str] = field(default_factory=dict)
    """Files, and cells, that are not due yet, and why."""


def look(settings: Settings, state: State, now_ns: int) -> Look:
    """Look at the inbox once and say what is due."""
    glance = _Glance(settings, state, now_ns)
    glance.identify()
    glance.ask()
    return glance.found


class _Glance:
    """One look in the making."""

    def __init__(self, settings: Settings, state: State, now_ns: int) -> None:
        self._settings, self._before, self._now_ns = settings, state, now_ns
        self._inbox = settings.inbox
        self._files = dict(_scan(settings.inbox))
        self._held: dict[str, Holding] = {}
        self._cells: dict[Cell, list[str]] = defaultdict(list)
        self._company = Counter(os.path.dirname(name) for name in self._files)  # noqa: PTH120 - names, not paths
        self._bytes_left = LOOK_BYTES
        self.found = Look(State())

    def identify(self) -> None:
        """Find out what the files hold, as far as a quick look tells."""
        venues = known_venues()
        for name, stamp in self._files.items():
            if (refused := self._before.refused.get(name)) and refused[:2] == (stamp, self._lying_with(name)):
                self.found.state.refused[name] = refused
                continue
            held = by_name(name)
            if held is None or held.instruments[0].partition(".")[0] not in venues:
                held = self._looked_through(name, stamp)
            if held is not None:
                self._file(name, stamp, held)

    def _lying_with(self, name: str) -> int:
        return self._company[os.path.dirname(name)]  # noqa: PTH120 - a name, not a path

    def _file(self, name: str, stamp: Stamp, held: Holding) -> None:
        """Put a file into the cells that it is of."""
        first, last = self._settings.first_day.isoformat(), day_of(self._now_ns).isoformat()
        days = [day for day in held.days if first <= day <= last]
        if not days:
            held_days = ", ".join(held.days)
            self._refuse(name, stamp, f"its days, {held_days}, do not lie in {first} (SYNTH_FIRST_DAY) to {last}")
            return
        self._held[name] = held
        for cell in ((instrument, day) for instrument in held.instruments for day in days):
            self._cells[cell].append(name)

    def _looked_through(self, name: str, stamp: Stamp) -> Holding | None:
        """Return what a file of another's making holds, looking through it once it has come to rest."""
        if name in self._before.known and self._before.known[name][0] == stamp:
            self.found.state.known[name] = self._before.known[name]
            return self._before.known[name][1]
        if reason := self._unknown_yet(name, stamp):
            self.found.state.resting[name] = stamp
            self.found.waiting[name] = reason
            return None
        if stamp[0] > LOOK_BYTES:
            held = _answered(self._answer(name, stamp))
        else:
            self._bytes_left -= stamp[0]
            held = _look_into(self._inbox, name)
        if isinstance(held, str):
            self._refuse(name, stamp, held)
            return None
        self.found.state.known[name] = (stamp, held)
        return held

    def _unknown_yet(self, name: str, stamp: Stamp) -> str:
        """Return why a new file is not looked through this time, empty when it can be."""
        seen = self._before.resting.get(name) == stamp or self._before.refused.get(name, (None,))[0] == stamp
        if not seen or self._is_young(stamp):
            return "may still be growing"
        if rawlog.is_being_written(self._inbox / name):
            return "is being written"
        if stamp[0] > LOOK_BYTES:
            answer = self._answer(name, stamp)
            if answer.exists():
                return ""
            self.found.large.append((name, answer))
            return "is large and being looked through"
        return "" if stamp[0] <= self._bytes_left else "its turn comes"

    def _is_young(self, stamp: Stamp) -> bool:
        return self._now_ns - stamp[1] < self._settings.inbox_settle_seconds * NS_PER_SECOND

    def _answer(self, name: str, stamp: Stamp) -> Path:
        return self._settings.home / _ANSWERS / f"{sha256_json([name, *stamp])[:16]}.json"

    def _refuse(self, name: str, stamp: Stamp, reason: str) -> None:
        self.found.state.known.pop(name, None)
        path = self._inbox / name
        reason = reason if str(path) in reason else f"{path}: {reason}"
        self.found.state.refused[name] = (stamp, self._lying_with(name), reason)
        before = self._before.refused.get(name)
        if before is None or (before[0], before[2]) != (stamp, reason):
            self.found.refused.append((path, reason))

    def ask(self) -> None:
        """Ask for every cell whose files have come to rest and are not those of its last request."""
        for cell in sorted(self._cells):
            if not (names := self._sources(cell)):
                continue
            text = " ".join(cell)
            key = sha256_json([text, [[name, *self._files[name]] for name in names]])[:16]
            if (before := self._before.asked.get(text)) is not None:
                self.found.state.asked[text] = before
            if before == key:
                continue
            if reason := self._unrest(names):
                self.found.waiting[text] = reason
            elif len(self.found.requests) == REQUESTS or self._refuse_foreign(names):
                self.found.waiting[text] = "its turn comes"
            else:
                self.found.state.asked[text] = key
                paths = [self._inbox / name for name in names]
                self.found.requests.append(Request(Instrument.parse(cell[0]), date.fromisoformat(cell[1]), paths, key))

    def _sources(self, cell: Cell) -> list[str]:
        """Return the files of a cell in the order of time, with those that reach it over midnight."""
        frames = list(self._frames(cell))
        sessions = sorted({tuple(self._held[name].files) for name in self._cells[cell] if self._held[name].rows})
        chosen = frames or list(sessions.pop(0))
        for name in (name for session in sessions for name in session if name in self._held):
            # Rows of several files cannot be told apart from rows twice; messages can, by their ids.
            reason = f"{cell[0]} on {cell[1]} is held by {chosen[0]} already: move one of the two away"
            self._refuse(name, self._files[name], reason)
        if not frames:
            return [name for name in chosen if name in self._files]
        names = {*frames, *self._over_midnight(cell)}
        return self._each_content_once(sorted(names, key=lambda name: (self._held[name].first_ns, name)))

    def _over_midnight(self, cell: Cell) -> Iterator[str]:
        """Yield the neighbouring days' files that meet this day's at midnight."""
        day = date.fromisoformat(cell[1])
        start, end = day_start_ns(day), day_start_ns(day) + NS_PER_DAY
        if min(held.first_ns for held in self._frames(cell).values()) <= start + SILENCE_NS:
            before = self._frames((cell[0], (day - timedelta(days=1)).isoformat()))
            yield from (name for name, held in before.items() if held.last_ns >= start - SILENCE_NS)
        if max(held.last_ns for held in self._frames(cell).values()) >= end - SILENCE_NS:
            after = self._frames((cell[0], (day + timedelta(days=1)).isoformat()))
            yield from (name for name, held in after.items() if held.first_ns <= end + SILENCE_NS)

    def _frames(self, cell: Cell) -> dict[str, Holding]:
        """Return the files of a cell that hold messages."""
        return {name: self._held[name] for name in self._cells.get(cell, ()) if not self._held[name].rows}

    def _each_content_once(self, names: list[str]) -> list[str]:
        """Leave out copies: files of the same size, beginning and end (compressed files carry checksums there)."""
        seen: set[tuple[int, str]] = set()
        sizes = [self._files[name][0] for name in names]
        kept = []
        for name in sorted(names, key=lambda name: (self._files[name][1], name)):
            size = self._files[name][0]
            mark = (size, _sample(self._inbox / name, self._files[name]) if sizes.count(size) > 1 else name)
            if mark not in seen:
                seen.add(mark)
                kept.append(name)
        return [name for name in names if name in kept]

    def _unrest(self, names: list[str]) -> str:
        """Return why the files of a cell cannot be read yet, empty when they can."""
        for name in names:
            if by_name(name) is None:
                if name not in self.found.state.known:
                    return f"{name} may still be growing"
            elif self._is_young(self._files[name]):
                return f"{name} may still be growing"
            elif rawlog.is_being_written(self._inbox / name):
                return f"{name} is being written"
        return ""

    def _refuse_foreign(self, names: list[str]) -> bool:
        """Refuse files that bear a recorder's name and are no raw logs; whether there are any."""
        found = [name for name in names if by_name(name) and not _is_raw_log(self._inbox / name)]
        for name in found:
            self._refuse(name, self._files[name], "it is named like a raw log and is none: rename it")
        return bool(found)


def _is_raw_log(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(rawlog.MAGIC)) == rawlog.MAGIC


def _scan(inbox: Path, below: str = "") -> Iterator[tuple[str, Stamp]]:
    """Yield every file that does not call itself unfinished, relative to the inbox, with its stamp."""
    try:
        entries = sorted(os.scandir(inbox / below), key=lambda entry: entry.name)
    except OSError:
        return  # not there (yet), or gone while we looked
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(_UNFINISHED):
            continue
        name = f"{below}{entry.name}"
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _scan(inbox, f"{name}/")
            elif entry.is_file():
                stat = entry.stat()
                yield name, (stat.st_size, stat.st_mtime_ns)
        except OSError:
            continue


@lru_cache(maxsize=65_536)
def _sample(path: Path, stamp: Stamp) -> str:
    """Return a digest of a file's beginning and end."""
    with path.open("rb") as file:
        digest = sha256(file.read(_SAMPLE))
        file.seek(max(stamp[0] - _SAMPLE, 0))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _look_into(inbox: Path, name: str) -> Holding | str:
    """Return what a file holds, or why that cannot be told."""
    try:
        return by_content(inbox, name)
    except SynthError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - no file, however odd, may keep the others waiting
        return f"{inbox / name} cannot be read ({type(error).__name__}: {error}): convert it to a known format"


def look_through(inbox: Path, name: str, answer: Path) -> Holding | str:
    """Look through a large file, however long that takes, and leave the answer for the next look."""
    held = _look_into(inbox, name)
    answer.parent.mkdir(parents=True, exist_ok=True)
    fresh = answer.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(held), encoding="utf-8")
    fresh.replace(answer)
    return held


def _answered(answer: Path) -> Holding | str:
    stored = json.loads(answer.read_text(encoding="utf-8"))
    return stored if isinstance(stored, str) else Holding(*stored)

"""How the simulator's kernels are compiled, and under which names numba keeps them.

numba's cache looks at the file of the cached function only. The kernels here call each other across files and take over
constants, so after an update of one file the old code of another would go on running: same version, other bytes. So a
kernel is kept under a digest of all sources of this package. A process that runs other sources reads and writes other
files, also one that loaded the older ones and compiles only after the update.
"""

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, TypeVar

from numba import config as _config
from numba import njit as _njit
from numba.core import caching

__all__ = ["kernel", "njit"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_WITHOUT_REFERENCES: Any = {"_nrt": False}
config: Any = _config
_FOLDER = Path(__file__).parent
_USUAL = "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"
"""Where numba looks by default, for all other code."""


def njit(**options: Any) -> Callable[[_Function], _Function]:
    """Compile as numba does, and keep what is compiled under the digest."""
    _come_first()
    decorate: Callable[[_Function], _Function] = _njit(**options)
    return decorate


def kernel(function: _Function) -> _Function:
    """Compile a function that allocates nothing.

    Counting references to the arrays of a book, from one function to the next, would take more than half of the time.
    """
    return njit(cache=True, **_WITHOUT_REFERENCES)(function)


def digest_of(folder: Path) -> str:
    """Return a digest of all Python sources below a folder."""
    found = sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


_DIGEST = digest_of(_FOLDER)


class _Keyed:
    """Puts the digest into the names of the files of kernels of this package; others are none of its business."""

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> Self | None:
        """Return the locator of a function, None for one of another package or where the folder is not writable."""
        if not Path(source).is_relative_to(_FOLDER):
            return None
        found: Self | None = super().from_function(function, source)  # type: ignore[misc]
        return found

    def get_disambiguator(self) -> str:
        """Return what tells functions of one name apart."""
        return f"{super().get_disambiguator()}-{_DIGEST}"  # type: ignore[misc]


class Provided(_Keyed, caching.UserProvidedCacheLocator):
    """Below NUMBA_CACHE_DIR, where that is set."""


class InTree(_Keyed, caching.InTreeCacheLocator):
    """Beside the sources."""


class UserWide(_Keyed, caching.UserWideCacheLocator):
    """In the user's cache folder, where the sources may not be written to."""


def _drop_others() -> None:
    """Remove the kernels of other sources from beside them; a process that still runs those compiles anew at most."""
    for entry in _FOLDER.rglob("*.nb[ic]"):
        if f"-{_DIGEST}." not in entry.name:
            with suppress(OSError):  # another process may be removing the same ones, or have one open
                entry.unlink()


_OWN = ",".join(f"{__name__}.{kind.__name__}" for kind in (Provided, InTree, UserWide))


def _come_first() -> None:
    """Put our locators before others: numba forgets them when it sees that a variable NUMBA_… has changed."""
    if _OWN not in config.CACHE_LOCATOR_CLASSES:
        config.CACHE_LOCATOR_CLASSES = f"{_OWN},{config.CACHE_LOCATOR_CLASSES or _USUAL}"


_drop_others()

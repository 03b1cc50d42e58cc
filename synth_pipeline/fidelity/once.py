"""`Once`: what was found of a set of data is kept with it, since many metrics hold many sets against the same one.

Sets never change, so nothing that is kept grows old; it lives as long as its set does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Self, TypeVar

Made = TypeVar("Made")


class Once:
    """Data that remember what was found of them."""

    def once(self, function: Callable[[Self], Made]) -> Made:
        """Return `function` of the data, computed at the first call; a lambda made anew is another function."""
        if function not in self._made:
            self._made[function] = function(self)
        made: Made = self._made[function]
        return made

    @cached_property
    def _made(self) -> dict[Callable[..., object], Any]:
        return {}

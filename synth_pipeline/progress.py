"""How long work reports how far it is: a callable that anybody may pass, and the one that says nothing."""

from typing import Protocol


class Progress(Protocol):
    """Called as `progress(done, total, note)`; `done` counts up to `total`, `note` is a few words for a person."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` units are finished."""


def silent(done: int, total: int, note: str = "") -> None:
    """Report nothing."""

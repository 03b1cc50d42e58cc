"""Every error of ours, in one tree.

    SynthError                     a fault that we can name
    ├── InputError                 the user's input is wrong: the command line prints its one line and exits with 2
    │   ├── UnknownNameError       a venue, generator, … that does not exist
    │   ├── NoDataError            the input is readable but holds nothing for this request
    │   └── TooLittleDataError     fewer rows than the computation needs
    ├── BadMessage                 one payload that a venue's parser refuses (quarantined, never fatal by itself)
    ├── TrainingError              a fit that diverged, collapsed or ran out of numbers
    └── MetricError                a metric that cannot be computed on these samples (reported as absent)

A message names the thing, the value and the remedy, in one line.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class SynthError(Exception):
    """A fault that we can name; the base of every error the package raises."""


class InputError(SynthError):
    """The user's input is wrong. The message is one line: the thing, the value, the remedy."""


class UnknownNameError(InputError):
    """A name that no plug-in or setting carries; the message lists the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}: known are {', '.join(known)}.{hint}")


class NoDataError(InputError):
    """The input is readable but holds nothing for this request."""


class TooLittleDataError(InputError):
    """Fewer observations than the computation needs; the message says how many and how to get more."""


class BadMessage(SynthError):  # noqa: N818 - the venue's message is bad, not our code
    """One payload that a venue's parser refuses.

    `reason` is a short slug (`malformed_json`, `wrong_venue`, …) under which quarantined rows are counted.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class TrainingError(SynthError):
    """A fit that diverged, collapsed or met non-finite numbers; the message names which."""


class MetricError(SynthError):
    """A metric that cannot be computed on these samples; it is reported as absent, with this reason."""

"""What the recorder follows of each stream while it passes: ids, gaps, and the bridge from a snapshot to the updates.

The same rules as in ingestion, on heads instead of whole messages, so that a gap is mended while it can be.
"""

from __future__ import annotations

from collections import deque

from synth_pipeline.venues import Head, SequenceRule, Verdict

_WAITING = 20_000
"""Updates kept while a snapshot is asked for; one that is older than the oldest of them is asked for again."""


class Stream:
    """One stream of one instrument: how far it came, and when it last spoke."""

    __slots__ = ("first_ns", "kind", "last_id", "last_ns", "messages")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.last_id = 0
        self.messages = 0
        self.first_ns = self.last_ns = 0
        """Monotonic times of its first and last message on the present connection."""

    def hear(self, now_ns: int) -> None:
        """Take notice of one message."""
        if not self.messages:
            self.first_ns = now_ns
        self.messages += 1
        self.last_ns = now_ns

    def is_stalled(self, now_ns: int, patience_ns: int) -> bool:
        """Whether it is silent for longer than patience allows, and for twenty times its own usual pause."""
        silence = now_ns - self.last_ns
        if self.messages < 2 or silence <= patience_ns:
            return False
        return silence > 20 * (self.last_ns - self.first_ns) / (self.messages - 1)

    def forget_pace(self) -> None:
        """Begin anew on another connection."""
        self.messages = self.first_ns = self.last_ns = 0


class Counted(Stream):
    """Trades whose ids count up by one."""

    __slots__ = ()

    def check(self, head: Head) -> Verdict:
        """Judge one trade by its id."""
        last, new = self.last_id, head.last_id
        if new == last + 1 or not last:
            self.last_id = new
            return Verdict.IN_ORDER
        if new <= last:
            return Verdict.DUPLICATE
        self.last_id = new
        return Verdict.GAP


class Rising(Stream):
    """Quotes and whatever else has ids that rise, or none."""

    __slots__ = ()

    def check(self, head: Head) -> Verdict:
        """Nothing can be missing that an id would show."""
        if head.last_id > self.last_id:
            self.last_id = head.last_id
        return Verdict.IN_ORDER


class Book(Stream):
    """The depth stream of one instrument: the venue's rule, and the updates that wait for a snapshot."""

    __slots__ = ("_rule", "_waiting")

    def __init__(self, rule: SequenceRule) -> None:
        super().__init__("book_levels")
        self._rule = rule
        self._waiting: deque[Head] = deque(maxlen=_WAITING)

    @property
    def is_known(self) -> bool:
        """Whether a book could be built up to the last message."""
        return self._rule.last_id is not None

    def follows(self, head: Head) -> bool:
        """Whether an update is the next one; changes nothing."""
        rule = self._rule
        return rule.last_id is not None and rule.judge(head, rule.last_id, rule.bridging) is Verdict.IN_ORDER

    def check(self, head: Head) -> Verdict:
        """Judge one update or snapshot of the stream."""
        self.last_id = head.last_id if head.last_id > self.last_id or head.snapshot else self.last_id
        if head.snapshot:
            return Verdict.IN_ORDER if self.take_snapshot(head.last_id) else Verdict.NEEDS_SNAPSHOT
        rule, was_bridging = self._rule, self._rule.bridging
        verdict = rule.check(head)
        if verdict is Verdict.IN_ORDER:
            return verdict
        if verdict is Verdict.DUPLICATE:
            # It came once; the snapshot was ahead of it.
            return Verdict.IN_ORDER if was_bridging else verdict
        if verdict is Verdict.GAP:
            self._waiting.clear()
        self._waiting.append(head)
        # Nothing is known to be missing between updates; the snapshot was too old for the first of them.
        return Verdict.NEEDS_SNAPSHOT if was_bridging else verdict

    def take_snapshot(self, last_id: int) -> bool:
        """Bridge from a snapshot to the updates that waited; False where it is too old for them."""
        rule = self._rule
        if rule.last_id is not None and not rule.snapshot_overwrites:
            return True
        rule.snapshot(last_id)
        if rule.snapshot_overwrites:
            self._waiting.clear()
            return True
        waiting = list(self._waiting)
        for number, head in enumerate(waiting):
            if rule.check(head) is Verdict.GAP:
                # What the snapshot reaches is of no more use: the next one must reach what comes behind the hole.
                self._waiting = deque(waiting[number:], maxlen=_WAITING)
                return False
        self._waiting.clear()
        return True

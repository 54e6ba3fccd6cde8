"""Who is told of tokens as they come, and how long decoding may take."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from seq2edge.runtime.errors import ConfigError


class Number(NamedTuple):
    """Which sentence, as its caller counts: it seeds samples, and callbacks get it."""

    text: int
    piece: int = 0  # of a text that is too long to be decoded at once
    sample: int = 0


OnToken = Callable[[Number, int], object]


@dataclass(frozen=True)
class Watch:
    """What interrupts a decoding; the best so far comes back, and says why."""

    # Called with a sentence's number and each of its tokens, in order and without the
    # end token; a true answer stops the sentence. A beam tells a token when nothing
    # that is alive could still make it another.
    on_token: OnToken | None = None
    deadline_ms: float | None = None  # from the call on
    clock: Callable[[], float] = time.perf_counter  # seconds

    def __post_init__(self) -> None:
        """Refuse a time that can't be meant."""
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            raise ConfigError(f"deadline_ms {self.deadline_ms} must be above 0")

    def begin(self) -> "Monitor":
        """The time runs from now on."""
        return Monitor(self)


class Monitor:
    """A watch that is running."""

    def __init__(self, watch: Watch) -> None:
        self._on_token, self._clock, until = watch.on_token, watch.clock, None
        if watch.deadline_ms is not None:
            until = watch.clock() + watch.deadline_ms / 1000
        self._until = until
        self._told: dict[Number, int] = {}

    @property
    def streams(self) -> bool:
        """Whether anybody wants to be told."""
        return self._on_token is not None

    def late(self) -> bool:
        """Whether the time is over."""
        return self._until is not None and self._clock() >= self._until

    def tell(self, number: Number, token: int) -> bool:
        """Tell one more token; whether the sentence is to stop."""
        return self._on_token is not None and bool(self._on_token(number, token))

    def tell_agreed(self, number: Number, paths: Sequence[Sequence[int]]) -> bool:
        """Tell what all paths begin with, as far as it is news."""
        if self._on_token is None:
            return False
        told = self._told.get(number, 0)
        columns = zip(*(path[told:] for path in paths), strict=False)
        agreed = takewhile(lambda column: len(set(column)) == 1, columns)
        for place, (token, *_) in enumerate(agreed, start=told + 1):
            self._told[number] = place
            if self._on_token(number, token):
                return True
        return False

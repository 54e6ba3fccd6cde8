"""Where the time of a translation goes: wrappers around tokenizer and model.

They note when each part of the work begins and ends. What lies before, between and
after the model's runs is the search's: padding the batch, choosing, ranking. The whole
is timed by itself, so that parts which fail to add up show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.stepper import (
    Ahead,
    Decoding,
    FloatArray,
    Foresee,
    Foresight,
    Inputs,
    IntArray,
    Labeller,
    Outlook,
    Stepper,
    Stream,
)
from seq2edge.runtime.tokenizer import Tokenizer

T = TypeVar("T")
Clock = Callable[[], float]  # seconds, as time.perf_counter

TOKENIZE = "tokenize"
ENCODE = "encode"
STEP = "step"
SEARCH = "search"
DETOKENIZE = "detokenize"
PARTS = (TOKENIZE, ENCODE, STEP, SEARCH, DETOKENIZE)


@dataclass(frozen=True)
class Span:
    """One piece of work; the clock's seconds."""

    part: str
    start: float
    end: float
    steps: int = 1  # tokens that came of it, where it is a step

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True)
class Call:
    """One call of the translator, timed from outside, and the spans within."""

    start: float
    end: float
    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """How long the whole took."""
        return self.end - self.start

    def part_seconds(self, part: str) -> float:
        """How long all spans of a part took, or the search around them."""
        if part == SEARCH:
            return self._search_seconds()
        return sum(span.seconds for span in self.spans if span.part == part)

    def other_seconds(self) -> float:
        """What no part accounts for: the translator's own work."""
        return self.seconds - sum(map(self.part_seconds, PARTS))

    def step_seconds(self) -> list[float]:
        """Each step by itself; of several that were one run, their mean each."""
        steps = (span for span in self.spans if span.part == STEP)
        return [each for s in steps for each in [s.seconds / s.steps] * s.steps]

    def first_token_seconds(self) -> float | None:
        """From the call to the end of the first step; None if there was none."""
        ends = [span.end for span in self.spans if span.part == STEP]
        return ends[0] - self.start if ends else None

    def _search_seconds(self) -> float:
        """From the end of each run to what comes next, and from what precedes a batch.

        The first span of a batch is its encoder's run.
        """
        begin, end = Span("", self.start, self.start), Span("", self.end, self.end)
        return sum(
            following.start - span.end
            for span, following in pairwise((begin, *self.spans, end))
            if span.part in (ENCODE, STEP) or following.part == ENCODE
        )


class Recorder:
    """Notes the spans of one call at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spans: list[Span] = []

    def call(self, work: Callable[[], T]) -> tuple[T, Call]:
        """Do the work, and say where its time went."""
        self._spans = []
        start = self._clock()
        result = work()
        end = self._clock()
        return result, Call(start, end, tuple(self._spans))

    def span(self, part: str, work: Callable[[], T]) -> T:
        """Do a piece of the work under the name of its part."""
        start = self._clock()
        result = work()
        self._spans.append(Span(part, start, self._clock()))
        return result

    def several(self, work: Callable[[], T], count: Callable[[T], int]) -> T:
        """Do several steps as one span; count says of the result how many they were."""
        result = self.span(STEP, work)
        self._spans[-1] = replace(self._spans[-1], steps=count(result))
        return result


class TimedTokenizer:
    """A tokenizer whose work is noted."""

    def __init__(self, tokenizer: Tokenizer, recorder: Recorder) -> None:
        self._tokenizer = tokenizer
        self._span = recorder.span

    @property
    def tail(self) -> int:
        """As the tokenizer's."""
        return self._tokenizer.tail

    def lead(self, text: str) -> tuple[str, str]:
        """As the tokenizer's."""
        return self._tokenizer.lead(text)

    def encode(self, text: str) -> list[int]:
        """Part tokenize."""
        return self._span(TOKENIZE, lambda: self._tokenizer.encode(text))

    def encode_target(self, text: str) -> list[int]:
        """Part tokenize."""
        return self._span(TOKENIZE, lambda: self._tokenizer.encode_target(text))

    def source_pieces(self, text: str) -> tuple[str, ...]:
        """Part tokenize."""
        return self._span(TOKENIZE, lambda: self._tokenizer.source_pieces(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Part detokenize."""
        return self._span(DETOKENIZE, lambda: self._tokenizer.decode(ids))

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Part detokenize."""
        return self._span(DETOKENIZE, lambda: self._tokenizer.pieces(ids))

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        """Part tokenize."""
        return self._span(TOKENIZE, lambda: self._tokenizer.unknown_characters(text))


class TimedStepper:
    """A stepper whose encoder runs and steps are noted."""

    def __init__(self, stepper: Stepper, recorder: Recorder) -> None:
        self._stepper = stepper
        self._recorder = recorder

    def start(self, inputs: Inputs) -> Decoding:
        """Part encode."""
        decoding = self._recorder.span(ENCODE, lambda: self._stepper.start(inputs))
        return _TimedDecoding(decoding, self._recorder)


class TimedLabeller:
    """A labeller whose runs are noted."""

    def __init__(self, labeller: Labeller, recorder: Recorder) -> None:
        self._labeller = labeller
        self._recorder = recorder

    def logits(self, inputs: Inputs) -> FloatArray:
        """Part encode."""
        return self._recorder.span(ENCODE, lambda: self._labeller.logits(inputs))

    def stream(self, rows: int) -> Stream:
        """Whose steps are of part step."""
        return _TimedStream(self._labeller.stream(rows), self._recorder)


class _TimedStream:
    def __init__(self, stream: Stream, recorder: Recorder) -> None:
        self._stream = stream
        self._recorder = recorder

    def push(self, positions: NDArray[np.generic]) -> FloatArray:
        return self._recorder.span(STEP, lambda: self._stream.push(positions))


class _TimedDecoding:
    def __init__(self, decoding: Decoding, recorder: Recorder) -> None:
        self._decoding = decoding
        self._span = recorder.span
        ahead: Ahead | None = getattr(decoding, "ahead", None)
        if ahead is not None:
            self.ahead = _timed_ahead(ahead, recorder)
        foresee: Foresee | None = getattr(decoding, "foresee", None)
        if foresee is not None:
            self.foresee = _timed_foresee(foresee, recorder)

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        return self._span(STEP, lambda: self._decoding.best(tokens, parents, count))

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        return self._span(STEP, lambda: self._decoding.scores(tokens, parents))

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        return self._span(STEP, lambda: self._decoding.attended(tokens, parents, count))

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        return self._span(STEP, lambda: self._decoding.logits(tokens, parents))

    def keep(self, sentences: IntArray) -> None:
        self._decoding.keep(sentences)  # no run of the graph: the search's time


def _timed_ahead(ahead: Ahead, recorder: Recorder) -> Ahead:
    def timed(tokens: IntArray, most: int) -> tuple[FloatArray, IntArray]:
        return recorder.several(lambda: ahead(tokens, most), lambda it: it[1].shape[1])

    return timed


def _timed_foresee(foresee: Foresee, recorder: Recorder) -> Foresee:
    def timed(tokens: IntArray, outlook: Outlook) -> Foresight | None:
        return recorder.several(
            lambda: foresee(tokens, outlook), lambda it: it.steps if it else 1
        )

    return timed

"""The seam between a model and what drives it: whatever can start and step can be
decoded, and whatever gives logits can label.

The ONNX engine and the torch module both satisfy it, so that one search decodes both
and parity compares models, not decoders.

Letters: batch, the sentences still being decoded; rows = batch * beam, row b * beam + j
being beam j of sentence b. The beam may differ from step to step (the first step has
one row a sentence).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
Inputs = Mapping[str, NDArray[np.generic]]


class Decoding(Protocol):
    """One batch under way: the model's memory, and the state after the last step."""

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        """Advance every row and return the `count` most probable next tokens.

        tokens (rows,): the token that each row ends with; what follows an end token
        doesn't matter. parents (rows,): row i goes on from row parents[i] of the step
        before; None keeps the rows as they are. Returns log-probabilities and token
        ids, both (rows, count), best first.
        """
        ...

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """Advance every row and return all log-probabilities, (rows, vocabulary)."""
        ...

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """The same before the log-softmax, where that makes a difference."""
        ...

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """As `best`, and where in the input the model looked: (rows, positions).

        positions: those of every sequence of the input, one behind the other, padding
        included, on which a row has 0; its sum is 1. InputError if the model has no
        attention to show.
        """
        ...

    def keep(self, sentences: IntArray) -> None:
        """Go on with these sentences only (indices into the present batch, ascending).

        Their rows of the last step stay, in order; those of the others are dropped.
        """
        ...


# As SpeculativeDecoding.ahead.
Ahead = Callable[[IntArray, int], tuple[FloatArray, IntArray]]


class SpeculativeDecoding(Decoding, Protocol):
    """A Decoding of one sentence that may go several steps of greedy search at once.

    What has `ahead` is one.
    """

    def ahead(self, tokens: IntArray, most: int) -> tuple[FloatArray, IntArray]:
        """Advance by one token or more, and never by more than `most`.

        tokens (1,). Returns log-probabilities and tokens, both (1, steps): what so many
        calls of `best` would choose, each with its best token for the next; nothing
        behind the end token.
        """
        ...


class Outlook(NamedTuple):
    """What a beam search of one sentence will do while nothing interferes.

    At each step the best `found` tokens of each row are found. Of all these the best
    `width` are looked at, by the totals with the bans added. The next beam are the best
    `beam` of them that don't end.
    """

    parents: IntArray | None  # (rows,), of the next step
    totals: FloatArray  # (rows,), sums of log-probabilities so far
    bans: FloatArray  # (vocabulary,): -inf for what may not come, else 0
    found: int  # the count of each row
    width: int
    beam: int
    most_ended: int  # among the best `beam` of a step; then there may be an end
    steps: int  # at most


class Seen(NamedTuple):
    """What foreseen steps looked at, all (steps, width), best first."""

    totals: FloatArray  # -inf: none
    tokens: IntArray
    log_probs: FloatArray  # of these tokens
    parents: IntArray  # the row that each goes on from


class Foresight(Protocol):
    """Steps of a beam that were run ahead."""

    @property
    def steps(self) -> int:
        """How many."""
        ...

    @property
    def left(self) -> bool:
        """Whether there are steps that weren't followed."""
        ...

    def follow(self, tokens: IntArray, parents: IntArray | None) -> Seen | None:
        """The next; None behind the last step, or if it began with something else.

        tokens, parents: as Decoding.best is given, which need not be asked then.
        """
        ...

    def skip(
        self, tokens: IntArray, parents: IntArray | None, most: int
    ) -> Seen | None:
        """All that follow, but `most`, as far as nothing ends: of each the next beam.

        (steps, beam), and of no step where a token looked at is the end token; None of
        no step.
        """
        ...


class ForesightfulDecoding(Decoding, Protocol):
    """A Decoding of one sentence that may run the steps of a beam ahead.

    What has `foresee` is one.
    """

    def foresee(self, tokens: IntArray, outlook: Outlook) -> Foresight | None:
        """Run what comes next; what is asked meanwhile goes on from what was followed.

        tokens: as `best` would be given next. None where it can't.
        """
        ...


# As ForesightfulDecoding.foresee.
Foresee = Callable[[IntArray, Outlook], Foresight | None]


class Stepper(Protocol):
    """A model that can begin to decode a batch; safe to share between threads."""

    def start(self, inputs: Inputs) -> Decoding:
        """Encode a batch, e.g. source (batch, source) and source_lengths (batch,)."""
        ...


class Stream(Protocol):
    """Rows that are labelled position by position; the state after the last one."""

    def push(self, positions: NDArray[np.generic]) -> FloatArray:
        """Read one token (rows,) or frame (rows, features) each: (rows, labels)."""
        ...


class Labeller(Protocol):
    """A model that gives labels; safe to share between threads."""

    def logits(self, inputs: Inputs) -> FloatArray:
        """Read a batch: (batch, labels), or (batch, time, labels) of a tagger.

        What a tagger gives past a sequence's length means nothing.
        """
        ...

    def stream(self, rows: int) -> Stream:
        """Begin to tag so many sequences position by position."""
        ...

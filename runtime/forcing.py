"""A given target, read token by token in place of a search's own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from seq2edge.runtime.stepper import Decoding, IntArray


@dataclass(frozen=True)
class Step:
    """What the next step of a decoding reads, and what it should say."""

    sentences: IntArray  # (rows,): places in the batch that was started
    tokens: IntArray  # (rows,): what each row ends with
    due: IntArray  # (rows,): the target's token that follows


def forced(
    decoding: Decoding, targets: Sequence[Sequence[int]], start: int
) -> Iterator[Step]:
    """The steps through one target a sentence, each with a token at least.

    Whoever takes a step from here must advance the decoding by it. A sentence leaves
    the batch once its target is at its end.
    """
    lengths = np.array([len(target) for target in targets])
    live = np.arange(len(targets))
    tokens = np.full(len(targets), start, np.int64)
    for place in count():
        due = np.array([targets[row][place] for row in live.tolist()], np.int64)
        yield Step(live, tokens, due)
        left = np.flatnonzero(lengths[live] > place + 1)
        if not left.size:
            return
        if left.size < live.size:
            decoding.keep(left)
        live, tokens = live[left], due[left]

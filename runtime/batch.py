"""What each of the sentences that are decoded together brings, beside the options."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.errors import InputError
from seq2edge.runtime.monitor import Monitor, Number
from seq2edge.runtime.stepper import IntArray
from seq2edge.runtime.vocabulary import Vocabulary


@dataclass(frozen=True)
class Guidance:
    """What a caller may say of each sentence; empty where there is nothing to say."""

    prefixes: Sequence[Sequence[int]] = ()  # target ids that it begins with
    numbers: Sequence[Number] = ()  # seeds its samples, and names it to callbacks
    read: NDArray[np.bool_] | None = None  # (batch, positions): no padding; None: all
    monitor: Monitor | None = None


@dataclass(frozen=True)
class Batch:
    """The same, complete and checked, one entry for each sentence."""

    max_lengths: IntArray  # (batch,), the end token included
    prefixes: tuple[tuple[int, ...], ...]
    numbers: tuple[Number, ...]
    read: NDArray[np.bool_] | None  # where coverage counts
    monitor: Monitor | None = None

    @classmethod
    def of(cls, max_lengths: IntArray, guidance: Guidance | None = None) -> "Batch":
        """Fill in what the guidance leaves out; sentences are counted from 0."""
        guidance, size = guidance or Guidance(), len(max_lengths)
        prefixes = tuple(map(tuple, guidance.prefixes)) or ((),) * size
        numbers = tuple(guidance.numbers) or tuple(map(Number, range(size)))
        if not len(prefixes) == len(numbers) == size:
            raise InputError(
                f"{len(prefixes)} prefixes and {len(numbers)} numbers don't fit "
                f"{size} sentences; give one for each"
            )
        return cls(max_lengths, prefixes, numbers, guidance.read, guidance.monitor)

    def check(self, vocabulary: Vocabulary) -> None:
        """Refuse lengths and prefixes that can't be meant."""
        if self.max_lengths.min() < 1:
            raise InputError(
                f"maximal length {self.max_lengths.min()} must be at least 1"
            )
        for prefix, longest in zip(self.prefixes, self.max_lengths, strict=True):
            wrong = [id_ for id_ in prefix if not 0 <= id_ < vocabulary.size]
            if wrong or vocabulary.end in prefix[:-1]:
                raise InputError(
                    f"prefix holds id {[*wrong, vocabulary.end][0]}; give ids from 0 "
                    f"to {vocabulary.size - 1}, the end token {vocabulary.end} only "
                    "behind the others"
                )
            if prefix and len(prefix) + (prefix[-1] != vocabulary.end) > longest:
                raise InputError(
                    f"a prefix of {len(prefix)} tokens leaves no room within the "
                    f"maximal length {longest}; shorten it or allow more"
                )

    def sampled(self, samples: int) -> "Batch":
        """Each sentence so many times, and its samples numbered."""
        sentences = np.repeat(np.arange(len(self.numbers)), samples).tolist()
        numbers = [
            number._replace(sample=sample)
            for number in self.numbers
            for sample in range(samples)
        ]
        return replace(self.take(sentences), numbers=tuple(numbers))

    def take(self, sentences: Sequence[int]) -> "Batch":
        """These sentences only."""
        return Batch(
            self.max_lengths[np.asarray(sentences, np.int64)],
            tuple(self.prefixes[sentence] for sentence in sentences),
            tuple(self.numbers[sentence] for sentence in sentences),
            self.read if self.read is None else self.read[np.asarray(sentences)],
            self.monitor,
        )

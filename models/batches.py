"""Token ids in batches of about equal cost.

Pairs of equal lengths are put together, so that little is padding and the encoder
rarely has to pack. The order depends on the seed and the epoch only, so that a resumed
run meets the same batches.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seq2edge.models.corpus import Corpus
from seq2edge.runtime.tokenizer import SentencePieceTokenizer
from seq2edge.runtime.vocabulary import Vocabulary


@dataclass(frozen=True)
class EncodedCorpus:
    """Token ids of every pair; the source ends with the end token, the target not."""

    sources: list[list[int]]
    targets: list[list[int]]
    defects: Counter[str]

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class Batch:
    """source, target, expected (batch, time) int64, lengths (batch,) int32.

    `target` begins with the start token, `expected` is the same moved by one and ends
    with the end token.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    expected: Tensor
    tokens: int  # expected ones that are not padding


def encode_corpus(
    corpus: Corpus,
    tokenizer: SentencePieceTokenizer,
    max_tokens: int,
    max_ratio: float,
) -> EncodedCorpus:
    """Tokenize; pairs too long or absurdly unequal are counted and left out."""
    encoded = EncodedCorpus([], [], Counter(corpus.defects))
    for source, target in zip(corpus.sources, corpus.targets, strict=True):
        left, right = tokenizer.encode(source), tokenizer.encode_target(target)
        shorter, longer = sorted((len(left), len(right)))
        if longer >= max_tokens:
            encoded.defects["too long"] += 1
        elif longer > max_ratio * shorter + 10:
            encoded.defects["length ratio"] += 1
        else:
            encoded.sources.append(left)
            encoded.targets.append(right)
    return encoded


def epoch_batches(
    corpus: EncodedCorpus, batch_tokens: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Indices of every pair, in batches whose padded longer side fits batch_tokens."""
    random = np.random.default_rng((seed, epoch))
    lengths = np.array(
        [
            (len(s), len(t) + 1)
            for s, t in zip(corpus.sources, corpus.targets, strict=True)
        ]
    )
    order = random.permutation(len(corpus))
    order = order[np.lexsort((lengths[order, 1], lengths[order, 0]))]
    batches = list(_cut(order, lengths.max(axis=1), batch_tokens))
    return [batches[index] for index in random.permutation(len(batches))]


def _cut(
    order: np.ndarray, lengths: np.ndarray, batch_tokens: int
) -> Iterator[np.ndarray]:
    first, longest = 0, 0
    for position, index in enumerate(order):
        longest = max(longest, int(lengths[index]))
        if longest * (position - first + 1) > batch_tokens:
            yield order[first:position]
            first, longest = position, int(lengths[index])
    yield order[first:]


def make_batch(
    corpus: EncodedCorpus, indices: Sequence[int] | np.ndarray, vocabulary: Vocabulary
) -> Batch:
    """Pad the chosen pairs to their longest."""
    sources = [corpus.sources[index] for index in indices]
    targets = [corpus.targets[index] for index in indices]
    return Batch(
        source=_padded(sources, vocabulary.pad),
        source_lengths=torch.tensor([len(ids) for ids in sources], dtype=torch.int32),
        target=_padded([[vocabulary.start, *ids] for ids in targets], vocabulary.pad),
        expected=_padded([[*ids, vocabulary.end] for ids in targets], vocabulary.pad),
        tokens=sum(len(ids) + 1 for ids in targets),
    )


def _padded(sequences: list[list[int]], pad: int) -> Tensor:
    padded = np.full((len(sequences), max(map(len, sequences))), pad, dtype=np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(padded)

"""Examples in batches of about equal cost.

Those of equal lengths are put together, so that little is padding and the encoder
rarely has to pack. The order depends on the seed and the epoch only, so that a resumed
run meets the same batches.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from seq2edge.models.examples import EncodedCorpus
from seq2edge.models.labels import IGNORED
from seq2edge.models.network import Batch
from seq2edge.runtime.inputs import collate
from seq2edge.runtime.vocabulary import Vocabulary


def epoch_batches(
    corpus: EncodedCorpus, batch_tokens: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Indices of every example, in batches whose padded longer side fits."""
    random = np.random.default_rng((seed, epoch))
    lengths = np.array(corpus.lengths())
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
    corpus: EncodedCorpus,
    indices: Sequence[int] | np.ndarray,
    vocabulary: Vocabulary | None,
) -> Batch:
    """Pad the chosen examples to their longest; generation needs the vocabulary."""
    examples = [corpus.examples[index] for index in indices]
    outputs = [corpus.outputs[index] for index in indices]
    inputs = {
        name: torch.from_numpy(np.ascontiguousarray(array))
        for name, array in collate(examples, corpus.inputs).items()
    }
    if corpus.task != "generation":
        labels = _padded(outputs, IGNORED)
        tokens = int((labels != IGNORED).sum())
        whole = corpus.task == "classification"
        return Batch(inputs, labels[:, 0] if whole else labels, tokens)
    assert vocabulary is not None
    return Batch(
        inputs=inputs,
        target=_padded([[vocabulary.start, *ids] for ids in outputs], vocabulary.pad),
        expected=_padded([[*ids, vocabulary.end] for ids in outputs], vocabulary.pad),
        tokens=sum(len(ids) + 1 for ids in outputs),
    )


def _padded(sequences: list[list[int]], pad: int) -> Tensor:
    padded = np.full((len(sequences), max(map(len, sequences))), pad, dtype=np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(padded)

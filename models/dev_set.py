"""The dev set, and the loss on it; `judge` has the scores."""

from dataclasses import dataclass

import numpy as np
import torch

from seq2edge.models.batches import epoch_batches, make_batch
from seq2edge.models.corpus import Corpus
from seq2edge.models.examples import EncodedCorpus
from seq2edge.models.network import Network
from seq2edge.runtime.evaluate import group_references
from seq2edge.runtime.vocabulary import Vocabulary


@dataclass(frozen=True)
class DevSet:
    """Lines of input, with the outputs that the corpus gives each.

    In generation every source stands once, with all its references; labels belong to
    the lines as they are.
    """

    sources: list[str]
    references: list[list[str]]

    @classmethod
    def draw(
        cls, corpus: Corpus, encoded: EncodedCorpus, max_sentences: int, seed: int
    ) -> "DevSet":
        """A seeded sample of the readable lines, in the corpus's order; 0 for all."""
        sources = [corpus.record(line) for line in encoded.readable]
        outputs = [corpus.outputs[line] for line in encoded.readable]
        references = [[output] for output in outputs]
        if encoded.task == "generation":
            grouped = group_references(sources, outputs)
            sources, references = list(grouped), list(grouped.values())
        if 0 < max_sentences < len(sources):
            random = np.random.default_rng(seed)
            chosen = random.choice(len(sources), max_sentences, replace=False)
            sources = [sources[index] for index in sorted(chosen)]
            references = [references[index] for index in sorted(chosen)]
        return cls(sources, references)


@torch.inference_mode()
def dev_loss(
    model: Network, corpus: EncodedCorpus, vocabulary: Vocabulary | None
) -> float:
    """Mean cross entropy of a token or label in nats, without label smoothing."""
    total, tokens = 0.0, 0
    for indices in epoch_batches(corpus, batch_tokens=4000, seed=0, epoch=0):
        batch = make_batch(corpus, indices, vocabulary)
        if batch.tokens:
            total += float(model.loss(batch)) * batch.tokens
            tokens += batch.tokens
    return total / max(tokens, 1)

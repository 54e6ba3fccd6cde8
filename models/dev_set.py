"""Dev loss and dev BLEU, decoded by the same search as on the device."""

from dataclasses import dataclass

import numpy as np
import torch

from seq2edge.models.batches import EncodedCorpus, epoch_batches, make_batch
from seq2edge.models.corpus import Corpus
from seq2edge.models.recurrent_model import RecurrentModel
from seq2edge.runtime.evaluate import Scorers, group_references
from seq2edge.runtime.search import SearchOptions
from seq2edge.runtime.translator import Translator
from seq2edge.runtime.vocabulary import Vocabulary


@dataclass(frozen=True)
class DevSet:
    """Sources, each once, with all the references that the corpus gives it."""

    sources: list[str]
    references: list[list[str]]

    @classmethod
    def from_corpus(cls, corpus: Corpus, max_sentences: int, seed: int) -> "DevSet":
        """A seeded sample of the distinct sources, in the corpus's order; 0 for all."""
        grouped = group_references(corpus.sources, corpus.targets)
        sources = list(grouped)
        if 0 < max_sentences < len(sources):
            random = np.random.default_rng(seed)
            chosen = random.choice(len(sources), max_sentences, replace=False)
            sources = [sources[index] for index in sorted(chosen)]
        return cls(sources, [grouped[source] for source in sources])

    def bleu(self, translator: Translator, options: SearchOptions) -> float:
        """sacreBLEU (cased, 13a) of the translations, against all references."""
        translations = translator.translate_batch(self.sources, options)
        texts = [translation.text for translation in translations]
        return Scorers.load().score(texts, self.references)[0].score


@torch.inference_mode()
def dev_loss(
    model: RecurrentModel, corpus: EncodedCorpus, vocabulary: Vocabulary
) -> float:
    """Mean cross entropy of a target token in nats, without label smoothing."""
    total, tokens = 0.0, 0
    for indices in epoch_batches(corpus, batch_tokens=4000, seed=0, epoch=0):
        batch = make_batch(corpus, indices, vocabulary)
        loss = model.loss(
            batch.source, batch.source_lengths, batch.target, batch.expected
        )
        total += float(loss) * batch.tokens
        tokens += batch.tokens
    return total / tokens

"""Dev loss and dev BLEU, decoded by the same search as on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from seq2edge.models.batches import EncodedCorpus, epoch_batches, make_batch
from seq2edge.models.corpus import Corpus
from seq2edge.models.recurrent_model import RecurrentModel
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.runtime.search import SearchOptions, search
from seq2edge.runtime.tokenizer import SentencePieceTokenizer
from seq2edge.runtime.vocabulary import Vocabulary

SENTENCES_PER_BATCH = 128


@dataclass(frozen=True)
class DevSet:
    """Sources, each once, with all the references that the corpus gives it."""

    sources: list[str]
    references: list[list[str]]

    @classmethod
    def from_corpus(cls, corpus: Corpus, max_sentences: int, seed: int) -> "DevSet":
        """A seeded sample of the distinct sources, in the corpus's order; 0 for all."""
        grouped: dict[str, list[str]] = {}
        for source, target in zip(corpus.sources, corpus.targets, strict=True):
            grouped.setdefault(source, []).append(target)
        sources = list(grouped)
        if 0 < max_sentences < len(sources):
            random = np.random.default_rng(seed)
            chosen = random.choice(len(sources), max_sentences, replace=False)
            sources = [sources[index] for index in sorted(chosen)]
        return cls(sources, [grouped[source] for source in sources])

    def bleu(
        self,
        model: RecurrentModel,
        tokenizer: SentencePieceTokenizer,
        vocabulary: Vocabulary,
        options: SearchOptions,
        max_tokens: int,
    ) -> float:
        """sacreBLEU (cased, 13a) of the model's translations."""
        import sacrebleu

        ids = [tokenizer.encode(source) for source in self.sources]
        outputs = [""] * len(ids)
        order = np.argsort([len(sequence) for sequence in ids], kind="stable")
        stepper = TorchStepper(model)
        for first in range(0, len(order), SENTENCES_PER_BATCH):
            chosen = order[first : first + SENTENCES_PER_BATCH]
            inputs = _inputs([ids[index] for index in chosen], vocabulary.pad)
            limits = np.minimum(
                2 * inputs["source_lengths"].astype(int) + 10, max_tokens
            )
            found = search(stepper, inputs, vocabulary, options, limits)
            for index, hypotheses in zip(chosen, found, strict=True):
                outputs[index] = tokenizer.decode(hypotheses[0].tokens)
        most = max(map(len, self.references))
        streams = [
            [refs[rank] if rank < len(refs) else None for refs in self.references]
            for rank in range(most)
        ]
        return float(sacrebleu.corpus_bleu(outputs, streams).score)


def _inputs(ids: Sequence[list[int]], pad: int) -> dict[str, np.ndarray]:
    lengths = np.array([len(sequence) for sequence in ids], dtype=np.int32)
    source = np.full((len(ids), lengths.max()), pad, dtype=np.int64)
    for row, sequence in zip(source, ids, strict=True):
        row[: len(sequence)] = sequence
    return {"source": source, "source_lengths": lengths}


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

"""What else may follow a prefix: its likeliest next tokens, each gone on with.

As CTranslate2's return_alternatives: the translations differ at the position behind the
prefix, where an n-best list may differ anywhere.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from seq2edge.runtime.batch import Batch, Guidance
from seq2edge.runtime.constraints import Prompts
from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.guide import Guide, Prefix
from seq2edge.runtime.inputs import collate
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.proposals import proposer
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.sources import Sentence, read_sources

if TYPE_CHECKING:
    from seq2edge.runtime.translator import Translation, Translator


@dataclass(frozen=True)
class Branch:
    """A token that may follow the prefix, and where it leads."""

    token: str  # as the vocabulary writes it; the end token's too
    log_prob: float  # the model's, of this token behind the prefix
    translation: "Translation"  # prefix, token, and what follows


def branches(
    translator: "Translator",
    text: str,
    prefix: Prefix,
    count: int,
    options: SearchOptions,
) -> list[Branch]:
    """At most `count`, the likeliest token first; none of a blank text.

    InputError where the text is too long to be translated at once.
    """
    if count < 1:
        raise ConfigError(f"count {count} must be at least 1")
    [source] = read_sources(translator, [text], Guide([prefix]))
    if len(source.pieces) > 1:
        raise InputError(
            "a text that is too long to be translated at once has no alternatives; "
            "cut it and ask for those of a part"
        )
    options = replace(options, n_best=1, prefix_bias=0.0)
    if not source.sentences:
        return []
    [sentence] = source.sentences
    tokens, log_probs = _next_tokens(translator, sentence, count, options)
    begun = [replace(sentence, prefix=(*source.prefix, token)) for token in tokens]
    found = translator.decode_sentences(begun, options, None)
    return [
        Branch(piece, log_prob, translator.write(source, [hypotheses], options))
        for piece, log_prob, hypotheses in zip(
            translator.pieces(tokens), log_probs, found, strict=True
        )
    ]


def _next_tokens(
    translator: "Translator", sentence: Sentence, count: int, options: SearchOptions
) -> tuple[list[int], list[float]]:
    """The likeliest behind the prefix that may come, and their log-probabilities."""
    vocabulary = translator.vocabulary
    rules = Rules.of(vocabulary, options)
    room = np.array([len(sentence.prefix) + 3])  # so that nothing is forced to end yet
    batch = Batch.of(room, Guidance([sentence.prefix]))
    batch.check(vocabulary)
    inputs = collate([sentence.example], translator.inputs)
    source = proposer(translator.stepper.start(inputs), rules, batch)
    wanted = min(count, vocabulary.size)
    for token in (vocabulary.start, *Prompts.of(rules, batch).tokens[0]):
        candidates = source.propose(np.array([token]), None, wanted)
    order = (-candidates.scores[0]).argsort(kind="stable")[:wanted]
    order = order[candidates.scores[0, order] > -np.inf]
    return candidates.tokens[0, order].tolist(), candidates.log_probs[0, order].tolist()

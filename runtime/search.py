"""Decoding with any Stepper, in plain numpy: the front of all ways to search.

`options` says what can be asked for. Greedy search, beam search by either rule and
sampling are files of their own over shared parts: `rules` and `batch` (what is asked
for), `proposals` (which head, and what may come), `trellis` and `ranking`.
"""

from collections.abc import Sequence

import numpy as np

from seq2edge.runtime.batch import Batch, Guidance
from seq2edge.runtime.beam import beam_search
from seq2edge.runtime.greedy import greedy_search
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.stepper import Inputs, IntArray, Stepper
from seq2edge.runtime.transformers_beam import transformers_beam_search
from seq2edge.runtime.vocabulary import Vocabulary


def search(
    stepper: Stepper,
    inputs: Inputs,
    vocabulary: Vocabulary,
    options: SearchOptions,
    max_lengths: Sequence[int] | IntArray,
    guidance: Guidance | None = None,
) -> list[list[Hypothesis]]:
    """Decode a batch: for each sentence its `n_best` hypotheses, best first.

    max_lengths (batch,): the most tokens of each sentence, the end token included; a
    hypothesis that has so many and no end comes back unfinished. It must come from the
    sentence itself, never from its batch. Fewer than `n_best` hypotheses come back only
    where the beam found no more.
    """
    longest = np.asarray(max_lengths, dtype=np.int64)
    if not longest.size:
        return []
    if options.max_length is not None:
        longest = np.minimum(longest, options.max_length)
    batch = Batch.of(longest, guidance)
    batch.check(vocabulary)
    rules = Rules.of(vocabulary, options)
    if options.beam_size == 1 and (options.like_transformers or not reweighs(options)):
        return greedy_search(stepper, inputs, rules, batch)
    if options.like_transformers:
        return transformers_beam_search(stepper, inputs, rules, batch)
    return beam_search(stepper, inputs, rules, batch)


def reweighs(options: SearchOptions) -> bool:
    """Whether scores are more than the model's log-probabilities."""
    return options.repetition_penalty != 1 or options.prefix_bias > 0

"""Decoding with any Stepper, in plain numpy: the front of all ways to search.

`options` says what can be asked for. Greedy search, beam search by either rule and
sampling are files of their own over shared parts: `rules` and `batch` (what is asked
for), `proposals` (which head, and what may come), `trellis` and `monitor`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from seq2edge.runtime.batch import Batch, Guidance
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.stepper import Inputs, IntArray, Stepper
from seq2edge.runtime.vocabulary import Vocabulary

Way = Callable[[Stepper, Inputs, Rules, Batch], list[list[Hypothesis]]]

# Of a sentence whose turn came when the time was over.
NOT_BEGUN = Hypothesis((), 0.0, 0.0, finished=False, stopped="deadline")


def search(
    stepper: Stepper,
    inputs: Inputs,
    vocabulary: Vocabulary,
    options: SearchOptions,
    max_lengths: Sequence[int] | IntArray,
    guidance: Guidance | None = None,
) -> list[list[Hypothesis]]:
    """Decode a batch: for each sentence its `n_best` hypotheses, best first.

    Samples come in the order of their numbers instead, so that they don't depend on
    how many there are.

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
    if batch.monitor is not None and batch.monitor.late():
        return [[NOT_BEGUN]] * len(longest)
    return _way(options)(stepper, inputs, rules, batch)


def _way(options: SearchOptions) -> Way:
    """Imported here: a process that starts waits for the one way that it goes."""
    if options.sampling:
        from seq2edge.runtime.sampling import sample

        return sample
    if options.beam_size == 1 and (options.like_transformers or not _reweighs(options)):
        from seq2edge.runtime.greedy import greedy_search

        return greedy_search
    if options.like_transformers:
        from seq2edge.runtime.transformers_beam import transformers_beam_search

        return transformers_beam_search
    from seq2edge.runtime.beam import beam_search

    return beam_search


def _reweighs(options: SearchOptions) -> bool:
    """Whether scores are more than the model's log-probabilities, which greedy has."""
    reweighing = options.repetition_penalty != 1 or options.prefix_bias > 0
    return reweighing or options.coverage_penalty > 0

"""What may never come doesn't, what must come does, in every kind of search."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import (
    END,
    LOOKS,
    UNKNOWN,
    VOCABULARY,
    A,
    B,
    Prefix,
    ToyStepper,
    decode,
    random_model,
)

from seq2edge.runtime.batch import Guidance
from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.hypothesis import Hypothesis, length_penalty
from seq2edge.runtime.options import SearchOptions

KINDS = {
    "greedy": SearchOptions(beam_size=1, allow_unknown=True),
    "beam": SearchOptions(beam_size=4, n_best=3, allow_unknown=True),
    "transformers": SearchOptions(
        beam_size=4, n_best=3, allow_unknown=True, beam_rule="transformers"
    ),
    "samples": SearchOptions(sampling=True, n_best=3, allow_unknown=True),
}
kinds = st.sampled_from([*KINDS.values()])
texts = st.integers(0, 2**32 - 1)
tokens = st.sampled_from([UNKNOWN, A, B])


def decoded(
    options: SearchOptions, text: int, length: int, prefix: Prefix = ()
) -> list[Hypothesis]:
    guidance = Guidance(prefixes=[prefix])
    [found] = decode(random_model(), options, [length], [text], guidance=guidance)
    return found


def runs(tokens: Prefix, size: int) -> list[Prefix]:
    return [tokens[at : at + size] for at in range(len(tokens) - size + 1)]


@settings(deadline=None, max_examples=80)
@given(options=kinds, text=texts, size=st.integers(1, 3))
def test_no_n_gram_comes_twice(options: SearchOptions, text: int, size: int) -> None:
    options = replace(options, no_repeat_ngram_size=size)
    for one in decoded(options, text, 9):
        assert len(set(runs(one.tokens, size))) == len(runs(one.tokens, size))


@settings(deadline=None, max_examples=80)
@given(
    options=kinds,
    text=texts,
    suppressed=st.lists(
        st.lists(tokens, min_size=1, max_size=3).map(tuple), min_size=1, max_size=2
    ).map(tuple),
)
def test_what_is_suppressed_is_never_written(
    options: SearchOptions, text: int, suppressed: tuple[Prefix, ...]
) -> None:
    options = replace(options, suppressed=suppressed)
    for one in decoded(options, text, 8):
        for ids in suppressed:
            assert ids not in runs(one.tokens, len(ids))


@settings(deadline=None, max_examples=80)
@given(options=kinds, text=texts, prefix=st.lists(tokens, min_size=1, max_size=4))
def test_every_hypothesis_begins_with_the_prefix(
    options: SearchOptions, text: int, prefix: list[int]
) -> None:
    for one in decoded(options, text, 7, tuple(prefix)):
        assert one.tokens[: len(prefix)] == tuple(prefix)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_prefix_may_hold_the_end(options: SearchOptions) -> None:
    for one in decoded(options, 3, 5, (A, B, END)):
        assert one.tokens == (A, B)
        assert one.finished
        assert math.isfinite(one.score)


@pytest.mark.parametrize("prefix", [(A, 6), (END, A), (-1,), (A, A, A, A)])
def test_a_prefix_that_cannot_be_meant_is_refused(prefix: Prefix) -> None:
    with pytest.raises(InputError, match="prefix"):
        decoded(KINDS["greedy"], 0, 3, prefix)


@settings(deadline=None, max_examples=40)
@given(
    options=kinds,
    batch=st.lists(st.tuples(texts, st.lists(tokens, max_size=3)), max_size=4),
)
def test_each_sentence_has_its_own_prefix(
    options: SearchOptions, batch: list[tuple[int, list[int]]]
) -> None:
    options = replace(options, n_best=1)
    sentences = [text for text, _ in batch]
    guidance = Guidance(prefixes=[prefix for _, prefix in batch])
    found = decode(
        random_model(), options, [6] * len(batch), sentences, guidance=guidance
    )
    for (text, prefix), [one] in zip(batch, found, strict=True):
        if not options.sampling:
            assert [one] == decoded(options, text, 6, tuple(prefix))
        assert one.tokens[: len(prefix)] == tuple(prefix)


def biased(text: int, prefix: Prefix, beta: float) -> ToyStepper:
    """The bias worked out: as a model that has it, to be decoded without."""
    plain = random_model().next_token

    def next_token(sentence: int, before: Prefix) -> Any:
        log_probs = plain(text, before)
        at = len(before)
        if at < len(prefix) and before == prefix[:at]:
            probabilities = (1 - beta) * np.exp(log_probs)
            probabilities[prefix[at]] += beta
            return np.log(probabilities)
        return log_probs

    return ToyStepper(next_token)


@settings(deadline=None, max_examples=60)
@given(
    text=texts,
    prefix=st.lists(tokens, min_size=1, max_size=3).map(tuple),
    beta=st.sampled_from([0.1, 0.5, 0.9]),
    beam_size=st.integers(1, 4),
)
def test_a_bias_is_a_share_of_the_probability(
    text: int, prefix: Prefix, beta: float, beam_size: int
) -> None:
    options = SearchOptions(beam_size, allow_unknown=True)
    [expected] = decode(biased(text, prefix, beta), options, [5], [text])
    [found] = decoded(replace(options, prefix_bias=beta), text, 5, prefix)
    assert found.tokens == expected[0].tokens
    assert found.score == pytest.approx(expected[0].score, rel=1e-5)


def test_a_bias_of_nothing_biases_nothing() -> None:
    options = SearchOptions(beam_size=3, prefix_bias=0.9)
    plain = decoded(SearchOptions(beam_size=3), 5, 6)
    assert decoded(options, 5, 6) == plain


def test_a_bias_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="prefix_bias 1 must be at least 0 and below"):
        SearchOptions(prefix_bias=1)


def covered(tokens: Prefix) -> float:
    """What tokens have looked at: a step reads the token before the one it writes."""
    looks = [(0.5, 0.5), *(LOOKS.get(token, (0.5, 0.5)) for token in tokens[:-1])]
    return sum(math.log(min(sum(each), 1)) for each in zip(*looks, strict=True))


@settings(deadline=None, max_examples=40)
@given(
    text=texts,
    beta=st.sampled_from([0.2, 1.0, 5.0]),
    alpha=st.sampled_from([0.0, 1.0]),
    n_best=st.integers(1, 4),
)
def test_coverage_is_counted_as_if_everything_were_searched(
    text: int, beta: float, alpha: float, n_best: int
) -> None:
    stepper, found = random_model(), []

    def visit(before: Prefix, log_prob: float) -> None:
        for token, each in enumerate(stepper.next_token(text, before).tolist()):
            tokens, total = (*before, token), log_prob + each
            if token in (UNKNOWN, A, B) and len(tokens) < 4:
                visit(tokens, total)
            elif token in (UNKNOWN, A, B, END):
                penalty = length_penalty(len(tokens), alpha)
                found.append((total / penalty + beta * covered(tokens), tokens))

    visit((), 0.0)
    expected = sorted(found, reverse=True)[:n_best]
    options = SearchOptions(
        256, alpha, n_best, coverage_penalty=beta, allow_unknown=True
    )
    hypotheses = decoded(options, text, 4)
    assert [one.tokens + (END,) * one.finished for one in hypotheses] == [
        tokens for _, tokens in expected
    ]
    assert [one.score for one in hypotheses] == pytest.approx(
        [score for score, _ in expected]
    )


@settings(deadline=None, max_examples=30)
@given(sentences=st.lists(texts, min_size=1, max_size=4), beam_size=st.integers(1, 3))
def test_coverage_is_the_same_in_any_company(
    sentences: list[int], beam_size: int
) -> None:
    options = SearchOptions(beam_size, coverage_penalty=0.5)
    lengths = [3 + text % 4 for text in sentences]
    together = decode(random_model(), options, lengths, sentences)
    for text, length, found in zip(sentences, lengths, together, strict=True):
        assert decoded(options, text, length) == found


def test_padding_needs_no_coverage() -> None:
    options = SearchOptions(beam_size=2, coverage_penalty=1.0, length_penalty=0)
    straight = ToyStepper(lambda _, before: np.log([1e-9] * 4 + [0.6, 0.4]))
    read = np.array([[True, False]])
    [[one]] = decode(straight, options, [2], guidance=Guidance(read=read))
    assert one.tokens == (A, A)
    assert one.score == pytest.approx(one.log_prob)  # 0.5 and 1 cover the first
    [[one]] = decode(straight, options, [2])
    assert one.score == pytest.approx(one.log_prob + math.log(0.5))


HEADS: list[tuple[dict[str, Any], set[str]]] = [
    ({"beam_size": 1}, {"best"}),
    ({"beam_size": 3}, {"best"}),
    ({"no_repeat_ngram_size": 2}, {"best"}),
    ({"suppressed": ((A,), (B, B))}, {"best"}),
    ({"min_length": 2}, {"best"}),
    ({"beam_rule": "transformers"}, {"best"}),
    ({"repetition_penalty": 1.2}, {"scores"}),
    ({"repetition_penalty": 1.2, "beam_rule": "transformers"}, {"scores"}),
    (
        {"repetition_penalty": 1.2, "beam_rule": "transformers", "beam_size": 1},
        {"logits"},
    ),
    ({"coverage_penalty": 0.2}, {"attended"}),
    ({"coverage_penalty": 0.2, "repetition_penalty": 1.2}, {"attended"}),
    ({"sampling": True}, {"scores"}),
    ({"sampling": True, "top_k": 2}, {"best"}),
    ({"sampling": True, "top_k": 2, "no_repeat_ngram_size": 1}, {"best"}),
]
# Candidates that ban no more than a few leave the vocabulary of six some room.
WIDE = replace(VOCABULARY, size=40)


@pytest.mark.parametrize(("given", "heads"), HEADS)
def test_the_cheapest_head_that_knows_is_asked(
    given: dict[str, Any], heads: set[str]
) -> None:
    stepper = random_model(WIDE.size)
    decode(stepper, SearchOptions(**given), [6], vocabulary=WIDE)
    assert set(stepper.heads) == heads


def test_all_scores_are_asked_for_while_a_prefix_lasts() -> None:
    for options in (SearchOptions(1), SearchOptions(3), SearchOptions(prefix_bias=0.5)):
        stepper = random_model(WIDE.size)
        decode(
            stepper, options, [6], vocabulary=WIDE, guidance=Guidance(prefixes=[(A, B)])
        )
        assert stepper.heads[:3] == ["scores", "scores", "best"]

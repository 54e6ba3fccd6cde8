"""Draws against probabilities worked out, and filters against transformers' own."""

import math
import warnings
from collections import Counter
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import END, PAD, START, UNKNOWN, A, B, decode, random_model, tree_model

from seq2edge.runtime.batch import Guidance
from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.monitor import Number
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.sampling import draw, filtered, generator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers: Any = import_module("transformers")

SAMPLING = SearchOptions(sampling=True, length_penalty=0, seed=7)
TREE = {
    (): {A: 0.6, B: 0.3, END: 0.1},
    (A,): {END: 0.5, B: 0.5},
    (A, B): {END: 1.0},
    (B,): {END: 1.0},
}


def frequencies(options: SearchOptions, samples: int = 4000) -> dict[Any, float]:
    options = replace(options, n_best=samples)
    [found] = decode(tree_model(TREE), options, [5])
    counts = Counter(one.tokens for one in found)
    return {tokens: count / samples for tokens, count in counts.items()}


def assert_like(found: dict[Any, float], expected: dict[Any, float]) -> None:
    """Within four standard deviations of 4,000 draws."""
    assert found.keys() == expected.keys()
    for tokens, share in expected.items():
        assert abs(found[tokens] - share) <= 4 * math.sqrt(share * (1 - share) / 4000)


def test_samples_are_as_frequent_as_they_are_probable() -> None:
    expected = {(A,): 0.3, (A, B): 0.3, (B,): 0.3, (): 0.1}
    assert_like(frequencies(SAMPLING), expected)


def test_half_the_temperature_squares_the_odds() -> None:
    whole = 0.36 + 0.09 + 0.01
    expected = {(A,): 0.18, (A, B): 0.18, (B,): 0.09, (): 0.01}
    expected = {tokens: share / whole for tokens, share in expected.items()}
    assert_like(frequencies(replace(SAMPLING, temperature=0.5)), expected)


def test_top_k_and_top_p_leave_the_rest_out() -> None:
    expected = {(A,): 1 / 3, (A, B): 1 / 3, (B,): 1 / 3}
    assert_like(frequencies(replace(SAMPLING, top_k=2)), expected)
    # 0.6 and 0.3 have less than 0.95 together, so that the third stays.
    assert_like(frequencies(replace(SAMPLING, top_p=0.89)), expected)
    assert len(frequencies(replace(SAMPLING, top_p=0.95))) == 4


def test_the_filters_come_one_after_the_other() -> None:
    # Of the two that top_k leaves, the first has 2 / 3 by itself.
    found = frequencies(replace(SAMPLING, top_k=2, top_p=0.66))
    assert found.keys() == {(A,), (A, B)}


def test_what_is_left_out_changes_no_log_probability() -> None:
    [found] = decode(tree_model(TREE), replace(SAMPLING, top_k=1), [5])
    assert found[0].token_log_probs[0] == pytest.approx(math.log(0.6))


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 1.6]),
    top_k=st.integers(0, 12),
    top_p=st.sampled_from([0.05, 0.3, 0.8, 0.99, 1.0]),
)
def test_the_filters_are_those_of_transformers(
    seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    logits = np.random.default_rng(seed).normal(size=(3, 12)).astype(np.float32) * 2
    descending = -np.sort(-logits, axis=1)
    theirs = torch.from_numpy(descending).double()
    processors = [transformers.TemperatureLogitsWarper(temperature)]
    if top_k:
        processors.append(transformers.TopKLogitsWarper(top_k))
    if top_p < 1:
        processors.append(transformers.TopPLogitsWarper(top_p))
    for processor in processors:
        theirs = processor(None, theirs)
    options = replace(SAMPLING, temperature=temperature, top_k=top_k, top_p=top_p)
    ours = filtered(descending[:, : top_k or 12], options)
    ours = np.pad(ours, ((0, 0), (0, 12 - ours.shape[1])))
    expected = theirs.softmax(-1).numpy()
    np.testing.assert_allclose(ours / ours.sum(axis=1, keepdims=True), expected)


def test_a_draw_never_leads_past_what_may_come() -> None:
    class Last(np.random.Generator):
        def random(self, *_: Any, **__: Any) -> Any:
            return np.nextafter(1, 0)

    last = Last(np.random.PCG64())
    assert draw(np.array([[0.1, 0.2, 0.0], [1e-300, 0, 0]]), [last, last]).tolist() == [
        1,
        0,
    ]


def test_samples_have_generators_of_their_own() -> None:
    numbers = [Number(0), Number(1), Number(0, 1), Number(0, 0, 1)]
    draws = [generator(seed, each).random() for seed in (0, 1) for each in numbers]
    assert len(set(draws)) == 8


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.integers(0, 999), min_size=1, max_size=5, unique=True),
    order=st.randoms(),
    top_k=st.sampled_from([0, 2]),
    samples=st.integers(1, 3),
)
def test_a_sample_is_the_same_in_any_company(
    texts: list[int], order: Any, top_k: int, samples: int
) -> None:
    options = replace(SAMPLING, top_k=top_k, n_best=samples)

    def sampled(chosen: list[int]) -> list[Any]:
        guidance = Guidance(numbers=[Number(text) for text in chosen])
        longest = [2 + text % 7 for text in chosen]
        return decode(random_model(), options, longest, chosen, guidance=guidance)

    alone = {text: sampled([text])[0] for text in texts}
    order.shuffle(texts)
    assert sampled(texts) == [alone[text] for text in texts]


def test_more_samples_begin_with_the_fewer() -> None:
    [many] = decode(random_model(), replace(SAMPLING, n_best=9), [8])
    [few] = decode(random_model(), replace(SAMPLING, n_best=3), [8])
    assert many[:3] == few
    assert len({one.tokens for one in many}) > 3


def test_another_seed_draws_others() -> None:
    found = [
        decode(random_model(), replace(SAMPLING, seed=seed), [9])[0][0].tokens
        for seed in range(5)
    ]
    assert len(set(found)) > 1


@settings(deadline=None, max_examples=60)
@given(text=st.integers(0, 2**32 - 1), top_k=st.sampled_from([0, 1, 3]))
def test_constraints_hold_in_samples(text: int, top_k: int) -> None:
    options = replace(
        SAMPLING,
        top_k=top_k,
        n_best=4,
        no_repeat_ngram_size=2,
        suppressed=((A, B),),
        min_length=3,
        repetition_penalty=1.2,
    )
    guidance = Guidance(prefixes=[(B,)])
    [found] = decode(random_model(), options, [7], [text], guidance=guidance)
    for one in found:
        assert one.tokens[0] == B
        assert len(one.tokens) >= 3
        pairs = list(zip(one.tokens, one.tokens[1:], strict=False))
        assert len(set(pairs)) == len(pairs)
        assert (A, B) not in pairs
        assert not {PAD, START, UNKNOWN} & set(one.tokens)


def test_the_beam_head_is_asked_where_few_tokens_are_drawn_from() -> None:
    for options, head in ((SAMPLING, "scores"), (replace(SAMPLING, top_k=2), "best")):
        stepper = random_model()
        decode(stepper, options, [5])
        assert set(stepper.heads) == {head}


def test_a_model_without_numbers_is_an_error() -> None:
    stepper = random_model()
    stepper.next_token = lambda sentence, prefix: np.full(6, np.nan)
    for top_k in (0, 2):
        with pytest.raises(InputError, match="no finite log-probability"):
            decode(stepper, replace(SAMPLING, top_k=top_k), [3])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": 0.0, "sampling": True}, "temperature 0.0 must be above 0"),
        ({"top_p": 1.5, "sampling": True}, "top_p 1.5 must be above 0 and at most 1"),
        ({"top_k": 3}, "only sampling, which is off, has a use for top_k"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SearchOptions(**given)
    assert str(caught.value) == message

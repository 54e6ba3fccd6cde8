import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from toy_search import (
    END,
    PAD,
    START,
    UNKNOWN,
    VOCABULARY,
    A,
    B,
    Prefix,
    ToyStepper,
    Tree,
    decode,
    random_model,
    sources,
    tree_model,
)

from seq2edge.runtime.batch import Batch
from seq2edge.runtime.beam import beam_search
from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.hypothesis import Hypothesis, length_penalty
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.vocabulary import Vocabulary

# The likelier first word leads to the less likely sentence: A 0.6 * 0.4, B 0.4 * 0.9.
GARDEN_PATH = {
    (): {A: 0.6, B: 0.4},
    (A,): {END: 0.4, A: 0.3, B: 0.3},
    (A, A): {END: 1.0},
    (A, B): {END: 1.0},
    (B,): {END: 0.9, A: 0.1},
    (B, A): {END: 1.0},
}


def test_greedy_takes_the_likelier_first_word() -> None:
    [[hypothesis]] = decode(tree_model(GARDEN_PATH), SearchOptions(beam_size=1), [5])
    assert hypothesis.tokens == (A,)
    assert hypothesis.finished
    assert hypothesis.log_prob == pytest.approx(math.log(0.6 * 0.4))


def test_beam_finds_the_likelier_sentence() -> None:
    options = SearchOptions(beam_size=2, length_penalty=0)
    [[hypothesis]] = decode(tree_model(GARDEN_PATH), options, [5])
    assert hypothesis.tokens == (B,)
    assert hypothesis.log_prob == pytest.approx(math.log(0.36))
    assert hypothesis.score == hypothesis.log_prob


def test_n_best_lists_come_in_the_order_of_their_scores() -> None:
    options = SearchOptions(beam_size=5, n_best=5, length_penalty=0)
    [found] = decode(tree_model(GARDEN_PATH), options, [5])
    assert [hypothesis.tokens for hypothesis in found] == [
        (B,),
        (A,),
        (A, A),
        (A, B),
        (B, A),
    ]
    expected = [0.36, 0.24, 0.18, 0.18, 0.04]
    assert [math.exp(hypothesis.score) for hypothesis in found] == pytest.approx(
        expected
    )


def test_the_length_penalty_doubles_at_seven_tokens_for_alpha_one() -> None:
    assert length_penalty(1, 0.6) == 1
    assert length_penalty(7, 1) == 2
    assert length_penalty(7, 0) == 1
    assert length_penalty(19, 0.5) == 2


def test_the_score_counts_the_end_token() -> None:
    # Two tokens and the end: log-probability over ((5 + 3) / 6) ** 1.
    path = {(): {A: 1.0}, (A,): {B: 1.0}, (A, B): {END: 0.5, A: 0.5}}
    for beam_size in (1, 2):
        options = SearchOptions(beam_size, length_penalty=1)
        [[hypothesis]] = decode(tree_model(path), options, [3])
        assert hypothesis.tokens == (A, B)
        assert hypothesis.score == pytest.approx(math.log(0.5) / (8 / 6))


def test_a_hypothesis_at_its_maximal_length_is_unfinished() -> None:
    endless = {(A,) * length: {A: 0.9, END: 0.1} for length in range(9)}
    for beam_size in (1, 3):
        options = SearchOptions(beam_size, length_penalty=1)
        [[hypothesis]] = decode(tree_model(endless), options, [7])
        assert hypothesis.tokens == (A,) * 7
        assert not hypothesis.finished
        assert hypothesis.log_prob == pytest.approx(7 * math.log(0.9))
        assert hypothesis.score == pytest.approx(7 * math.log(0.9) / 2)


def test_each_sentence_has_its_own_maximal_length() -> None:
    endless = {(A,) * length: {A: 1.0} for length in range(9)}
    for beam_size in (1, 3):
        stepper = tree_model(endless, endless, endless)
        results = decode(stepper, SearchOptions(beam_size), [5, 2, 3])
        assert [len(found[0].tokens) for found in results] == [5, 2, 3]
        assert stepper.kept == [[0, 2], [0]]
        assert stepper.rows == [3, 3, 2, 1, 1]


def test_the_option_caps_every_maximal_length() -> None:
    endless = {(A,) * length: {A: 1.0} for length in range(9)}
    options = SearchOptions(beam_size=1, max_length=4)
    results = decode(tree_model(endless, endless), options, [8, 2])
    assert [len(found[0].tokens) for found in results] == [4, 2]


def test_finished_sentences_leave_the_batch_at_once() -> None:
    short: Tree = {(): {END: 1.0}}
    long: Tree = {(): {A: 1.0}, (A,): {A: 1.0}, (A, A): {END: 1.0}}
    for beam_size in (1, 4):
        stepper = tree_model(short, long, short, long)
        results = decode(stepper, SearchOptions(beam_size), [5, 5, 5, 5])
        assert [found[0].tokens for found in results] == [(), (A, A), (), (A, A)]
        assert stepper.rows == [4, 2, 2]
        assert stepper.kept == [[1, 3]]


def test_the_first_beam_step_has_one_row_a_sentence_and_then_fans_out() -> None:
    stepper = random_model()
    options = SearchOptions(beam_size=3, min_length=4, allow_unknown=True)
    decode(stepper, options, [4, 4])
    assert stepper.rows == [2, 6, 6, 6]


def test_an_ended_hypothesis_gives_up_its_place_for_good() -> None:
    # One of two ends at the second step, so that one row is left for all further ones.
    tree = {
        (): {A: 0.5, B: 0.5},
        (A,): {END: 1.0},
        (B,): {A: 0.6, B: 0.4},
        (B, A): {A: 0.6, B: 0.4},
        (B, A, A): {END: 1.0},
        (B, A, B): {END: 1.0},
    }
    stepper = tree_model(tree)
    options = SearchOptions(beam_size=2, n_best=2, length_penalty=0)
    [found] = decode(stepper, options, [9])
    assert [hypothesis.tokens for hypothesis in found] == [(A,), (B, A, A)]
    assert stepper.rows == [1, 2, 1, 1]


def test_search_stops_when_none_alive_can_win() -> None:
    # Both at log 0.5 after one step. Without a length penalty A can't win any more;
    # with alpha 1 and 7 tokens in all it could still come to log 0.5 / 2.
    tree = {(): {END: 0.5, A: 0.5}} | {(A,) * n: {A: 1.0} for n in range(1, 9)}
    for alpha, max_length, steps in ((0, 7, 1), (1, 7, 7), (1, 1, 1)):
        stepper = tree_model(tree)
        options = SearchOptions(beam_size=2, length_penalty=alpha)
        [[hypothesis]] = decode(stepper, options, [max_length])
        assert len(stepper.rows) == steps
        assert hypothesis.finished == (steps == 1)


def test_before_the_minimal_length_no_hypothesis_ends() -> None:
    tree = {(): {END: 0.9, A: 0.1}, (A,): {END: 0.9, B: 0.1}, (A, B): {END: 1.0}}
    for beam_size in (1, 3):
        options = SearchOptions(beam_size, min_length=2)
        [[hypothesis]] = decode(tree_model(tree), options, [5])
        assert hypothesis.tokens == (A, B)
        assert hypothesis.finished
        assert hypothesis.log_prob == pytest.approx(2 * math.log(0.1))


def test_greedy_asks_for_one_candidate_only() -> None:
    stepper = tree_model(GARDEN_PATH)
    decode(stepper, SearchOptions(beam_size=1), [5])
    assert stepper.counts == [1, 1]


def test_greedy_decodes_again_where_a_banned_token_is_the_best() -> None:
    tree = {
        (): {A: 0.6, B: 0.4},
        (A,): {PAD: 0.5, START: 0.3, B: 0.2},
        (A, B): {END: 1.0},
    }
    stepper = tree_model(GARDEN_PATH, tree)
    results = decode(stepper, SearchOptions(beam_size=1), [5, 5])
    assert [found[0].tokens for found in results] == [(A,), (A, B)]
    assert stepper.counts == [1, 1, 4, 4, 4]
    assert stepper.rows == [2, 2, 1, 1, 1]


def test_the_end_token_may_be_the_start_token_or_the_pad() -> None:
    tree = {(): {A: 1.0}, (A,): {END: 0.6, B: 0.4}}
    vocabularies = [
        Vocabulary(size=6, pad=PAD, unknown=UNKNOWN, start=END, end=END),
        Vocabulary(size=6, pad=END, unknown=UNKNOWN, start=START, end=END),
        Vocabulary(size=6, pad=END, unknown=UNKNOWN, start=END, end=END),
    ]
    for vocabulary in vocabularies:
        for beam_size in (1, 3):
            options = SearchOptions(beam_size)
            results = decode(tree_model(tree), options, [2], vocabulary=vocabulary)
            assert results[0][0].tokens == (A,)
            assert results[0][0].finished


def test_an_empty_batch_gives_nothing_and_starts_nothing() -> None:
    for beam_size in (1, 4):
        assert decode(tree_model(), SearchOptions(beam_size), []) == []


def test_fewer_hypotheses_than_asked_for_where_the_model_knows_no_more() -> None:
    tree = {(): {A: 0.5, END: 0.5}, (A,): {END: 1.0}}
    [found] = decode(tree_model(tree), SearchOptions(beam_size=6, n_best=6), [5])
    assert [hypothesis.tokens for hypothesis in found] == [(A,), ()]


def test_a_beam_wider_than_the_vocabulary_works() -> None:
    options = SearchOptions(beam_size=50, n_best=50, allow_unknown=True)
    [found] = decode(random_model(), options, [4])
    assert len(found) == 50


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_model_without_finite_scores_is_an_error(
    value: float, beam_size: int
) -> None:
    broken = ToyStepper(lambda sentence, prefix: np.full(VOCABULARY.size, value))
    with pytest.raises(InputError, match="no finite log-probability"):
        decode(broken, SearchOptions(beam_size), [3])


def test_nan_in_one_hypothesis_leaves_the_others() -> None:
    def next_token(sentence: int, prefix: Prefix) -> NDArray[np.float64]:
        if prefix[:1] == (A,):
            return np.full(VOCABULARY.size, np.nan)
        return np.log([1e-9, 1e-9, 1e-9, 0.1, 0.5, 0.4])

    options = SearchOptions(beam_size=2, length_penalty=0)
    [[hypothesis]] = decode(ToyStepper(next_token), options, [2])
    assert hypothesis.tokens == (B, A)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beam_size": 0}, "beam_size 0 must be at least 1"),
        ({"n_best": 0}, "n_best 0 must be at least 1"),
        (
            {"beam_size": 2, "n_best": 3},
            "n_best 3 is above beam_size 2; widen the beam or ask for fewer",
        ),
        ({"length_penalty": -0.1}, "length_penalty -0.1 must be at least 0"),
        ({"length_penalty": math.nan}, "length_penalty nan must be at least 0"),
        ({"length_penalty": math.inf}, "length_penalty inf must be at least 0"),
        ({"min_length": -1}, "min_length -1 must be at least 0"),
        ({"max_length": 0}, "max_length 0 must be at least 1"),
        ({"min_length": 5, "max_length": 4}, "min_length 5 is above max_length 4"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    values: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        SearchOptions(**values)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_all_faults_of_the_options_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        SearchOptions(beam_size=0, min_length=-1)
    assert str(caught.value) == (
        "beam_size 0 must be at least 1; min_length -1 must be at least 0"
    )


def test_a_maximal_length_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match="maximal length 0 must be at least 1"):
        decode(random_model(), SearchOptions(), [3, 0])


def test_a_vocabulary_of_special_ids_only_is_refused() -> None:
    vocabulary = Vocabulary(size=3, pad=0, unknown=0, start=1, end=2)
    with pytest.raises(InputError, match="a vocabulary of 3 ids"):
        decode(random_model(3), SearchOptions(), [3], vocabulary=vocabulary)


def exhaustive(
    stepper: ToyStepper, sentence: int, options: SearchOptions, max_length: int
) -> list[Hypothesis]:
    """Every hypothesis there is, best first."""
    found = []

    def visit(prefix: Prefix, before: tuple[float, ...]) -> None:
        log_probs = stepper.next_token(sentence, prefix).astype(np.float32)
        for token in (UNKNOWN, END, A, B):
            if token == END and len(prefix) < options.min_length:
                continue
            each = (*before, float(log_probs[token]))
            total = sum(each)
            length = len(prefix) + 1
            if token == END or length == max_length:
                finished = token == END
                tokens = prefix if finished else (*prefix, token)
                score = total / length_penalty(length, options.length_penalty)
                found.append(Hypothesis(tokens, score, total, finished, each))
            else:
                visit((*prefix, token), each)

    visit((), ())
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


seeds = st.integers(0, 2**32 - 1)
alphas = st.sampled_from([0.0, 0.6, 1.0, 2.5])
spreads = st.sampled_from([0.3, 1.5, 4.0])


@st.composite
def search_options(draw: st.DrawFn, most: int = 6) -> SearchOptions:
    beam_size = draw(st.integers(1, most))
    return SearchOptions(
        beam_size=beam_size,
        length_penalty=draw(alphas),
        n_best=draw(st.integers(1, beam_size)),
        min_length=draw(st.integers(0, 3)),
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Sentences and their maximal lengths."""
    pairs = draw(st.lists(st.tuples(seeds, st.integers(1, 8)), min_size=1, max_size=5))
    return [seed for seed, _ in pairs], [length for _, length in pairs]


@settings(deadline=None, max_examples=60)
@given(
    sentence=seeds,
    max_length=st.integers(1, 4),
    alpha=alphas,
    n_best=st.integers(1, 9),
    min_length=st.integers(0, 4),
    spread=spreads,
)
def test_a_beam_wide_enough_equals_exhaustive_search(
    sentence: int,
    max_length: int,
    alpha: float,
    n_best: int,
    min_length: int,
    spread: float,
) -> None:
    stepper = random_model(spread=spread)
    options = SearchOptions(4**4, alpha, n_best, min_length, allow_unknown=True)
    [found] = decode(stepper, options, [max_length], [sentence])
    assert found == exhaustive(stepper, sentence, options, max_length)[:n_best]


@settings(deadline=None, max_examples=100)
@given(batch=batches(), options=search_options(), spread=spreads)
def test_a_sentence_alone_and_in_any_batch_gives_the_same(
    batch: tuple[list[int], list[int]], options: SearchOptions, spread: float
) -> None:
    sentences, max_lengths = batch
    together = decode(random_model(spread=spread), options, max_lengths, sentences)
    alone = [
        decode(random_model(spread=spread), options, [max_length], [sentence])[0]
        for sentence, max_length in zip(sentences, max_lengths, strict=True)
    ]
    assert together == alone


@settings(deadline=None, max_examples=100)
@given(batch=batches(), alpha=alphas, min_length=st.integers(0, 3), spread=spreads)
def test_beam_of_one_equals_greedy(
    batch: tuple[list[int], list[int]], alpha: float, min_length: int, spread: float
) -> None:
    sentences, lengths = batch
    options = SearchOptions(1, alpha, min_length=min_length)
    greedy = decode(random_model(spread=spread), options, lengths, sentences)
    beam = beam_search(
        random_model(spread=spread),
        sources(*sentences),
        Rules.of(VOCABULARY, options),
        Batch.of(np.array(lengths)),
    )
    assert greedy == beam


@settings(deadline=None, max_examples=100)
@given(batch=batches(), options=search_options(), spread=spreads)
def test_every_hypothesis_has_the_probability_the_model_gives_it(
    batch: tuple[list[int], list[int]], options: SearchOptions, spread: float
) -> None:
    sentences, max_lengths = batch
    stepper = random_model(spread=spread)
    results = decode(stepper, options, max_lengths, sentences)
    for sentence, max_length, found in zip(
        sentences, max_lengths, results, strict=True
    ):
        assert 1 <= len(found) <= options.n_best
        assert len({(one.tokens, one.finished) for one in found}) == len(found)
        scores = [one.score for one in found]
        assert scores == sorted(scores, reverse=True)
        for one in found:
            emitted = one.tokens + (END,) * one.finished
            expected = sum(
                float(np.float32(stepper.next_token(sentence, emitted[:at])[token]))
                for at, token in enumerate(emitted)
            )
            assert one.log_prob == pytest.approx(expected)
            penalty = length_penalty(len(emitted), options.length_penalty)
            assert one.score == pytest.approx(expected / penalty)
            assert not {PAD, START, END} & set(one.tokens)
            assert len(emitted) <= max_length
            assert one.finished or len(emitted) == max_length
            assert len(one.tokens) >= min(options.min_length, max_length)


@settings(deadline=None, max_examples=50)
@given(batch=batches(), options=search_options(), order=st.randoms())
def test_the_order_of_the_batch_changes_nothing(
    batch: tuple[list[int], list[int]], options: SearchOptions, order: random.Random
) -> None:
    sentences, max_lengths = batch
    shuffled = list(range(len(sentences)))
    order.shuffle(shuffled)
    straight = decode(random_model(), options, max_lengths, sentences)
    results = decode(
        random_model(),
        options,
        [max_lengths[index] for index in shuffled],
        [sentences[index] for index in shuffled],
    )
    assert results == [straight[index] for index in shuffled]

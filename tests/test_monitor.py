"""Who is told of tokens, and what comes back when the time is over."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import A, B, decode, random_model, tree_model

from seq2edge.runtime.batch import Guidance
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.monitor import Number, Watch
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.search import NOT_BEGUN

OPTIONS = [
    SearchOptions(beam_size=1),
    SearchOptions(beam_size=1, no_repeat_ngram_size=2),
    SearchOptions(beam_size=4),
    SearchOptions(beam_size=4, n_best=3, beam_rule="transformers"),
    SearchOptions(beam_size=3, coverage_penalty=0.4),
    SearchOptions(sampling=True, n_best=2),
]
options_of_all_kinds = st.sampled_from(OPTIONS)
ENDLESS = {(A,) * length: {A: 0.8, B: 0.2} for length in range(9)}
ENDLESS |= {(*(A,) * length, B): {B: 1.0} for length in range(9)}
ENDLESS |= {(A,) * n + (B,) * m: {B: 1.0} for n in range(9) for m in range(1, 9)}


class Told:
    """Notes what it is told, and says stop after so many tokens of a text."""

    def __init__(self, most: int = 99) -> None:
        self.tokens: dict[Number, list[int]] = {}
        self.most = most

    def __call__(self, number: Number, token: int) -> bool:
        self.tokens.setdefault(number, []).append(token)
        return len(self.tokens[number]) >= self.most


class Clock:
    """A second later whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def watched(
    watch: Watch, options: SearchOptions, sentences: list[int], stepper: Any = None
) -> list[list[Hypothesis]]:
    guidance = Guidance(monitor=watch.begin())
    lengths = [8] * len(sentences)
    stepper = stepper or random_model()
    return decode(stepper, options, lengths, sentences, guidance=guidance)


@settings(deadline=None, max_examples=80)
@given(
    options=options_of_all_kinds,
    sentences=st.lists(st.integers(0, 999), min_size=1, max_size=4),
)
def test_what_is_told_is_the_result(
    options: SearchOptions, sentences: list[int]
) -> None:
    told = Told()
    found = watched(Watch(told), options, sentences)
    assert found == decode(random_model(), options, [8] * len(sentences), sentences)
    for place, hypotheses in enumerate(found):
        several = hypotheses if options.sampling else hypotheses[:1]
        for sample, one in enumerate(several):
            number = Number(place, sample=sample)
            assert tuple(told.tokens.get(number, ())) == one.tokens


@settings(deadline=None, max_examples=80)
@given(options=options_of_all_kinds, text=st.integers(0, 999), most=st.integers(1, 4))
def test_a_callback_may_stop_its_sentence_and_no_other(
    options: SearchOptions, text: int, most: int
) -> None:
    told = Told(most)
    [found] = watched(Watch(told), options, [text])
    [whole] = decode(random_model(), options, [8], [text])
    for sample, one in enumerate(found if options.sampling else found[:1]):
        heard = tuple(told.tokens.get(Number(0, sample=sample), ()))
        assert len(heard) <= most
        assert one.tokens[: len(heard)] == heard
        assert one.stopped in ("", "callback")
        if not one.stopped:
            assert one.tokens == whole[sample].tokens


def test_greedy_stops_at_the_token_that_was_told() -> None:
    for options in (OPTIONS[0], OPTIONS[5]):
        found = watched(Watch(Told(2)), options, [4, 5, 6])
        stopped = [one for each in found for one in each if one.stopped]
        assert stopped
        for one in stopped:
            assert one.stopped == "callback"
            assert len(one.tokens) == len(one.token_log_probs) == 2
            assert not one.finished


def test_a_beam_tells_what_all_that_live_agree_on() -> None:
    # A 0.6 or B 0.4 first: nothing is certain before one of them is out.
    tree = {
        (): {A: 0.6, B: 0.4},
        (A,): {A: 0.9, B: 0.1},
        (B,): {A: 0.5, B: 0.5},
        (A, A): {A: 1.0},
        (A, B): {A: 1.0},
        (B, A): {A: 1.0},
        (B, B): {A: 1.0},
    }
    heard: list[tuple[int, int]] = []
    stepper = tree_model(tree)

    def tell(number: Number, token: int) -> None:
        heard.append((len(stepper.rows), token))

    guidance = Guidance(monitor=Watch(tell).begin())
    options = SearchOptions(beam_size=2, length_penalty=0)
    decode(stepper, options, [3], guidance=guidance)
    # A A 0.54 and B A 0.2 live after two steps; all is over after the third.
    assert heard == [(3, A), (3, A), (3, A)]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_deadline_gives_the_best_so_far(options: SearchOptions) -> None:
    # The time begins at 1 and is over at 5.5: asked at 2, and at 3 to 6 behind a token.
    watch = Watch(deadline_ms=4500, clock=Clock())
    stepper = tree_model(ENDLESS)
    [found] = watched(watch, options, [0], stepper)
    for one in found:
        assert one.stopped == "deadline"
        assert not one.finished
        assert len(one.tokens) == 4
    assert len(stepper.rows) == 4


def test_what_has_ended_comes_before_what_was_cut() -> None:
    tree = {(): {A: 0.7, B: 0.3}, (B,): {3: 0.5, A: 0.5}}
    tree |= {(A,) * n: {A: 1.0} for n in range(1, 9)}
    tree |= {(B, *(A,) * n): {A: 1.0} for n in range(1, 9)}
    watch = Watch(deadline_ms=4500, clock=Clock())
    options = SearchOptions(beam_size=3, n_best=2, length_penalty=0)
    [found] = watched(watch, options, [0], tree_model(tree))
    assert [one.finished for one in found] == [True, False]
    assert {one.stopped for one in found} == {"deadline"}


def test_a_batch_whose_time_is_over_is_not_begun() -> None:
    stepper = random_model()
    watch = Watch(deadline_ms=500, clock=Clock())
    assert watched(watch, OPTIONS[0], [0, 1], stepper) == [[NOT_BEGUN]] * 2
    assert stepper.heads == []


def test_time_enough_changes_nothing() -> None:
    watch = Watch(deadline_ms=1e9, clock=Clock())
    for options in OPTIONS:
        expected = decode(random_model(), options, [8], [3])
        assert watched(watch, options, [3]) == expected


def test_a_deadline_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="deadline_ms 0 must be above 0"):
        Watch(deadline_ms=0)

"""A given target's log-probability: what a search reports, and what torch says."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models_structures import writer
from toy_bundle import SENTENCES, VOCABULARY, ToyModel, toy_inputs, write_toy_bundle

from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.runtime import SearchOptions, Translator
from seq2edge.runtime.batching import Batching
from seq2edge.runtime.errors import InputError
from seq2edge.runtime.forcing import forced
from seq2edge.runtime.inputs import tokens_input
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.scoring import ScoreFlags, TargetScore, perplexity
from seq2edge.runtime.vocabulary import Vocabulary

DATA = Path(__file__).parent / "data"
END, START = VOCABULARY.end, VOCABULARY.start


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    folder = tmp_path_factory.mktemp("scoring") / "toy"
    write_toy_bundle(folder)
    return Translator.load(folder)


def judged(source: Sequence[int], target: Sequence[int]) -> list[float]:
    """The numpy model's log-probabilities of a target and its end."""
    decoding = ToyModel().start(toy_inputs([source]))
    read, due = [START, *target], [*target, END]
    return [
        float(decoding.scores(np.array([token]), None)[0, following])
        for token, following in zip(read, due, strict=True)
    ]


tokens = st.lists(st.integers(4, VOCABULARY.size - 1), max_size=8)
pairs = st.tuples(tokens.map(lambda ids: [*ids, END]), tokens)


@settings(deadline=None, max_examples=25)
@given(st.lists(pairs, min_size=1, max_size=7))
def test_a_ragged_batch_is_scored_as_the_numpy_model_scores_each(
    toy: Translator, batch: list[tuple[list[int], list[int]]]
) -> None:
    sources, targets = [each[0] for each in batch], [each[1] for each in batch]
    found = toy.score_ids(sources, targets)
    for (source, target), result in zip(batch, found, strict=True):
        assert result.log_probs == pytest.approx(judged(source, target), abs=1e-4)
        assert result.log_prob == pytest.approx(sum(result.log_probs))


@pytest.mark.parametrize("beam_size", [1, 4])
def test_a_hypothesis_scores_what_its_search_reports(
    toy: Translator, beam_size: int
) -> None:
    draw = np.random.default_rng(2)
    sources = [
        [*draw.integers(4, VOCABULARY.size, size).tolist(), END] for size in range(12)
    ]
    options = SearchOptions(beam_size, n_best=beam_size)
    assert_same_as_search(toy, sources, options)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("beam_size", [1, 4])
def test_so_does_one_of_an_exported_model(precision: str, beam_size: int) -> None:
    translator = Translator.load(DATA / f"toy-{precision}")
    tokenizer = translator.tokenizer
    assert tokenizer is not None
    texts = ("one two", "red dog sun sun", "two", "sun two red one dog")
    options = SearchOptions(beam_size, n_best=beam_size)
    assert_same_as_search(translator, [tokenizer.encode(t) for t in texts], options)


def assert_same_as_search(
    translator: Translator, sources: list[list[int]], options: SearchOptions
) -> None:
    found = translator.generate(sources, options)
    ended = [
        (source, one)
        for source, each in zip(sources, found, strict=True)
        for one in each
        if one.finished
    ]
    assert len(ended) >= len(sources)
    scores = translator.score_ids(
        [source for source, _ in ended], [one.tokens for _, one in ended]
    )
    for (_, one), result in zip(ended, scores, strict=True):
        assert result.log_prob == pytest.approx(one.log_prob, abs=1e-4)
        penalized = result.normalized("penalty", options)
        assert penalized == pytest.approx(one.score, abs=1e-4)


TWO = {"article": "tokens", "question": "tokens"}


def test_several_inputs_are_scored_as_torch_scores_them() -> None:
    model = writer(inputs=TWO)
    translator = Translator(
        stepper=TorchStepper(model),
        vocabulary=Vocabulary(12, pad=0, unknown=1, start=2, end=3),
        limits=Limits(20, 20),
        inputs=(tokens_input("article"), tokens_input("question")),
    )
    examples = [
        {"article": [4, 5, 6, 7], "question": [8]},
        {"article": [9], "question": [5, 4, 10]},
    ]
    targets = [[4, 9, 11], [5]]
    found = translator.score_ids(examples, targets)
    for example, target, result in zip(examples, targets, found, strict=True):
        inputs: dict[str, Any] = {}
        for name, ids in example.items():
            inputs[name] = torch.tensor([ids])
            inputs[f"{name}_lengths"] = torch.tensor([len(ids)], dtype=torch.int32)
        with torch.no_grad():
            logits = model(inputs, torch.tensor([[2, *target]]))
        rows = logits[0].log_softmax(-1)
        expected = [rows[place, due] for place, due in enumerate([*target, 3])]
        assert result.log_probs == pytest.approx([float(x) for x in expected], abs=1e-5)
    lines = ["4 5 6 7\t8", "9\t5 4 10"]
    as_text = translator.score_batch(lines, ["4 9 11", "5"])
    assert [one.log_probs for one in as_text] == [one.log_probs for one in found]
    assert as_text[0].tokens == ("4", "9", "11", "3")


def test_texts_score_as_their_ids(toy: Translator) -> None:
    tokenizer = toy.tokenizer
    assert tokenizer is not None
    targets = SENTENCES[::-1]
    found = toy.score_batch(SENTENCES, targets)
    by_ids = toy.score_ids(
        [tokenizer.encode(text) for text in SENTENCES],
        [tokenizer.encode_target(text) for text in targets],
    )
    assert found == by_ids
    assert found[0].tokens[-1] == "</s>"
    assert len(found[0].tokens) == len(found[0].log_probs)
    alone = toy.score(SENTENCES[0], targets[0])
    assert alone.log_probs == pytest.approx(found[0].log_probs, abs=1e-5)


def test_no_batching_changes_a_score(toy: Translator) -> None:
    sources = [[4 + n, 5, 6, END] for n in range(9)]
    targets = [[7] * (n % 5) for n in range(9)]
    alone = replace(toy, batching=Batching(sentences=1))
    for one, other in zip(
        toy.score_ids(sources, targets), alone.score_ids(sources, targets), strict=True
    ):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
    assert toy.score_ids([], []) == []


def test_a_model_that_gives_no_number_is_told(toy: Translator) -> None:
    class Broken(ToyModel):
        def step(self, token: Any, memory: Any, state: Any) -> Any:
            raise AssertionError("attended_step is asked")

        def attended_step(self, token: Any, memory: Any, state: Any) -> Any:
            log_probs, *rest = super().attended_step(token, memory, state)
            return log_probs * np.float32(np.nan), *rest

    with pytest.raises(InputError, match="a log-probability that is no number"):
        replace(toy, stepper=Broken()).score_ids([[5, END]], [[6]])


def test_a_target_begins_with_the_token_that_a_search_forces(toy: Translator) -> None:
    told = replace(toy, defaults=SearchOptions(4, forced_first=7))
    tokenizer = toy.tokenizer
    assert tokenizer is not None
    source = tokenizer.encode(SENTENCES[0])
    [[found]] = told.generate([source])
    assert found.tokens[0] == 7
    [result] = told.score_batch([SENTENCES[0]], [tokenizer.decode(found.tokens[1:])])
    [by_ids] = told.score_ids([source], [found.tokens])
    assert by_ids.log_prob == pytest.approx(found.log_prob, abs=1e-4)
    target = [7, *tokenizer.encode_target(tokenizer.decode(found.tokens[1:]))]
    assert result == told.score_ids([source], [target])[0]


def test_an_empty_target_is_the_end_token_alone(toy: Translator) -> None:
    [result] = toy.score_batch([SENTENCES[0]], [""])
    assert result.tokens == ("</s>",)
    assert len(result.log_probs) == 1


def test_what_has_no_score_is_flagged_and_never_cut(toy: Translator) -> None:
    long = " ".join(SENTENCES * 4)
    sources = ["", " \x00 ", long, SENTENCES[0], SENTENCES[0]]
    targets = ["a", "a", "a", long, "☃"]
    found = toy.score_batch(sources, targets)
    assert [one.flags for one in found] == [
        ScoreFlags(no_source=True),
        ScoreFlags(no_source=True),
        ScoreFlags(too_long=True),
        ScoreFlags(too_long=True),
        ScoreFlags(unknown=True),
    ]
    assert [one.flags.scored for one in found] == [False] * 4 + [True]
    for one in found[:4]:
        assert one.log_probs == ()
        assert math.isnan(one.log_prob)
        assert math.isnan(one.perplexity)
        assert math.isnan(one.normalized("tokens", toy.defaults))


def test_the_longest_target_leaves_room_for_its_end(toy: Translator) -> None:
    source, longest = [5, END], toy.limits.target_tokens - 1
    [result] = toy.score_ids([source], [[6] * longest])
    assert len(result.log_probs) == toy.limits.target_tokens
    with pytest.raises(InputError, match="target 0 has 50 tokens; with its end token"):
        toy.score_ids([source], [[6] * (longest + 1)])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([[5, END]], "target 0 holds 3; give it without padding, start and end token"),
        ([[START, 5]], "target 0 holds 2; give it without"),
        ([[0]], "target 0 holds 0; give it without"),
        ([[40]], "target 0 holds 40, and this model's ids are 0 to 39"),
        ([[-1]], "target 0 holds -1"),
        ([[5], [6]], "there are 1 sources and 2 targets"),
    ],
)
def test_ids_that_are_no_target_are_named(
    toy: Translator, targets: list[list[int]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        toy.score_ids([[5, END]], targets)


def test_texts_of_a_bundle_without_tokenizer_are_ids(toy: Translator) -> None:
    bare = replace(toy, tokenizer=None)
    [result] = bare.score_batch(["5 6 3"], ["7 8"])
    assert result.log_probs == pytest.approx(judged([5, 6, END], [7, 8]), abs=1e-4)
    assert result.tokens == ("7", "8", "3")
    with pytest.raises(InputError, match="the target is 'seven', and this bundle has"):
        bare.score("5 3", "seven")
    with pytest.raises(InputError, match="the target '7 3' holds 3; give it without"):
        bare.score("5 3", "7 3")


def test_a_score_is_normalized_as_asked() -> None:
    result = TargetScore(("a", "b", "</s>"), (-1.0, -2.0, -3.0))
    options = SearchOptions(length_penalty=1.0)
    assert result.normalized("none", options) == -6
    assert result.normalized("tokens", options) == -2
    assert result.normalized("penalty", options) == pytest.approx(-6 / (8 / 6))
    power = replace(options, length_normalization="power")
    assert result.normalized("penalty", power) == -2
    assert result.perplexity == pytest.approx(math.exp(2))
    assert math.isnan(perplexity(0.0, 0))
    assert perplexity(-1e6, 2) == math.inf


def test_forced_steps_drop_what_has_ended() -> None:
    kept: list[list[int]] = []

    class Keeps:
        def keep(self, sentences: Any) -> None:
            kept.append(sentences.tolist())

    steps = list(forced(Keeps(), [[7], [4, 5, 6], [8, 9]], 1))  # type: ignore[arg-type]
    assert [step.sentences.tolist() for step in steps] == [[0, 1, 2], [1, 2], [1]]
    assert [step.tokens.tolist() for step in steps] == [[1, 1, 1], [4, 8], [5]]
    assert [step.due.tolist() for step in steps] == [[7, 4, 8], [5, 9], [6]]
    assert kept == [[1, 2], [0]]

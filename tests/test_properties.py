"""Properties that hold for every model that a configuration can name."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seq2edge.models.build import build_model
from seq2edge.models.inputs import input_specs
from seq2edge.models.recurrent_config import (
    ATTENTIONS,
    CELLS,
    CONTEXTS,
    SUMMARIES,
    SUMMARY_USES,
    RecurrentConfig,
)
from seq2edge.models.torch_stepper import TorchLabeller, TorchStepper
from seq2edge.models.transformer_config import (
    ACTIVATIONS,
    DECODERS,
    NORMS,
    POSITIONS,
    TransformerConfig,
)
from seq2edge.runtime.batch import Batch
from seq2edge.runtime.beam import beam_search
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.hypothesis import length_penalty
from seq2edge.runtime.inputs import Example, collate
from seq2edge.runtime.manifest import InputSpec
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.search import search
from seq2edge.runtime.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=7, pad=0, unknown=1, start=2, end=3)
LABELS, CLASSES, FEATURES = 4, ("p", "q", "r"), 3
LONGEST = 4  # tokens that a search may write
INPUTS = (
    {"source": "tokens"},
    {"sound": "frames"},
    {"vector": "vector"},
    {"kind": "class"},
    {"article": "tokens", "question": "tokens"},
    {"source": "tokens", "kind": "class"},
    {"sound": "frames", "vector": "vector"},
)
QUICK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Case:
    """A random model and what it reads."""

    config: Any
    module: Any
    inputs: tuple[InputSpec, ...]
    examples: list[Example]

    def batch(self, rows: list[int]) -> Any:
        return collate([self.examples[row] for row in rows], self.inputs)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads, compiled = torch.get_num_threads(), torch._C._get_mkldnn_enabled()
    torch.set_num_threads(1)
    torch._C._set_mkldnn_enabled(False)  # it compiles an LSTM anew for every shape
    yield
    torch.set_num_threads(threads)
    torch._C._set_mkldnn_enabled(compiled)


def cases(task: str) -> st.SearchStrategy[Case]:
    """Any combination that a configuration allows, with weights that say something."""
    return st.composite(_case)(task)


def _case(draw: Any, task: str) -> Case:
    transforms = task == "generation" and draw(st.booleans())
    config = _transformer(draw) if transforms else _recurrent(draw, task)
    module = build_model(config, draw(st.integers(0, 1 << 20))).eval()
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(1.5)
    classes = CLASSES if "class" in config.inputs.values() else ()
    specs = input_specs(config, classes)
    random = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    lengths = draw(st.lists(st.integers(1, 9), min_size=2, max_size=6))
    examples: list[Example] = [
        {
            spec.name: value(spec, random, length + place)
            for place, spec in enumerate(specs)
        }
        for length in lengths
    ]
    return Case(config, module, specs, examples)


def _transformer(draw: Any) -> TransformerConfig:
    return TransformerConfig(
        source_vocabulary=12,
        target_vocabulary=VOCABULARY.size,
        size=8,
        encoder_layers=draw(st.integers(1, 3)),
        decoder_layers=draw(st.integers(1, 3)),
        encoder_heads=draw(st.sampled_from((1, 2, 4))),
        decoder_heads=draw(st.sampled_from((1, 2, 4))),
        encoder_feed_forward=12,
        decoder_feed_forward=12,
        decoder=draw(st.sampled_from(DECODERS)),
        norm=draw(st.sampled_from(NORMS)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        positions=draw(st.sampled_from(POSITIONS)),
        position_offset=draw(st.sampled_from((0, 2))),
        max_positions=20,
        scale_embeddings=draw(st.booleans()),
        embedding_norm=draw(st.booleans()),
        tie=draw(st.sampled_from(("none", "output"))),
    )


def _recurrent(draw: Any, task: str) -> RecurrentConfig:
    inputs = draw(st.sampled_from(INPUTS[:2] if task == "tagging" else INPUTS))
    kinds = set(inputs.values())
    directions = draw(st.sampled_from((1, 2)))
    hidden = draw(st.sampled_from((4, 8)))
    values: dict[str, Any] = {
        "source_vocabulary": 12,
        "target_vocabulary": VOCABULARY.size,
        "task": task,
        "inputs": inputs,
        "features": FEATURES if kinds & {"frames", "vector"} else 0,
        "classes": len(CLASSES) if "class" in kinds else 0,
        "labels": 0 if task == "generation" else LABELS,
        "cell": draw(st.sampled_from(CELLS)),
        "embedding_size": 6,
        "encoder_hidden": hidden,
        "encoder_layers": draw(st.integers(1, 3)),
        "bidirectional": directions == 2,
        "summary": draw(st.sampled_from(SUMMARIES)),
        "summary_use": draw(st.sampled_from(SUMMARY_USES)),
        "decoder_hidden": draw(st.sampled_from((hidden * directions, 12))),
        "decoder_layers": draw(st.integers(1, 3)),
        "attention": draw(st.sampled_from(ATTENTIONS)),
        "context": draw(st.sampled_from(CONTEXTS)),
        "tie": draw(st.sampled_from(("none", "output"))),
    }
    if task != "generation":
        values |= {"attention": "none", "tie": "none"}
    try:
        return RecurrentConfig(**values)
    except ConfigError:
        assume(False)
        raise


def value(spec: InputSpec, random: np.random.Generator, length: int) -> Any:
    if spec.kind == "tokens":
        return random.integers(4, 12, length)
    if spec.kind == "class":
        return np.asarray(random.integers(len(CLASSES)))
    shape = (length, FEATURES) if spec.kind == "frames" else (FEATURES,)
    return random.standard_normal(shape).astype(np.float32)


def near(one: Any, other: Any) -> None:
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


def logits_of(case: Case, rows: list[int]) -> Any:
    """Logits of two steps, or of all positions that are no padding."""
    batch = case.batch(rows)
    if case.config.task != "generation":
        found = TorchLabeller(case.module, inputs=case.inputs).logits(batch)
        if case.config.task == "classification":
            return list(found)
        lengths = batch[str(case.inputs[0].lengths)]
        return [one[:length] for one, length in zip(found, lengths, strict=True)]
    decoding = TorchStepper(case.module).start(batch)
    start = np.full(len(rows), VOCABULARY.start)
    first = decoding.scores(start, None)
    second = decoding.scores(np.full(len(rows), 5), None)
    return [np.stack(pair) for pair in zip(first, second, strict=True)]


ANY = st.one_of(*(cases(task) for task in ("generation", "tagging", "classification")))


@QUICK
@given(ANY)
def test_a_row_in_a_padded_batch_is_the_row_alone(case: Case) -> None:
    rows = list(range(len(case.examples)))
    together = logits_of(case, rows)
    for row in rows:
        [alone] = logits_of(case, [row])
        near(together[row], alone)


@QUICK
@given(ANY, st.randoms())
def test_the_order_of_a_batch_does_not_matter(case: Case, random: Any) -> None:
    rows = list(range(len(case.examples)))
    shuffled = random.sample(rows, len(rows))
    before, after = logits_of(case, rows), logits_of(case, shuffled)
    for place, row in enumerate(shuffled):
        near(after[place], before[row])


@QUICK
@given(cases("generation"))
def test_steps_say_what_the_training_pass_says(case: Case) -> None:
    target = torch.tensor([[VOCABULARY.start, 5, 4, 6]] * len(case.examples))
    batch = case.batch(list(range(len(case.examples))))
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    with torch.no_grad():
        whole: Tensor = case.module(tensors, target)
        memory, state = case.module.encode(**tensors)
        for place, token in enumerate(target.unbind(1)):
            logits, state = case.module.step(token, memory, state)
            near(logits, whole[:, place])


@QUICK
@given(cases("tagging"))
def test_a_stream_says_what_the_whole_pass_says(case: Case) -> None:
    assume(not case.config.bidirectional)
    labeller = TorchLabeller(case.module, inputs=case.inputs)
    [spec] = case.inputs
    for row, [whole] in ((i, logits_of(case, [i])) for i in range(len(case.examples))):
        stream = labeller.stream(1)
        sequence = case.examples[row][spec.name]
        steps = [stream.push(sequence[i : i + 1])[0] for i in range(len(sequence))]
        near(np.stack(steps), whole)


@QUICK
@given(cases("generation"), st.sampled_from((0.0, 0.6)))
def test_a_beam_of_one_is_greedy_search(case: Case, penalty: float) -> None:
    stepper, rows = TorchStepper(case.module), list(range(len(case.examples)))
    lengths = np.full(len(rows), LONGEST + 3)
    options = SearchOptions(beam_size=1, length_penalty=penalty)
    greedy = search(stepper, case.batch(rows), VOCABULARY, options, lengths)
    rules = Rules.of(VOCABULARY, options)
    beam = beam_search(stepper, case.batch(rows), rules, Batch.of(lengths))
    assert [one[0].tokens for one in greedy] == [one[0].tokens for one in beam]


@settings(QUICK, max_examples=15)
@given(cases("generation"), st.sampled_from((0.0, 0.6)))
def test_a_beam_wide_enough_finds_the_best_there_is(case: Case, penalty: float) -> None:
    stepper, longest = TorchStepper(case.module), 3
    options = SearchOptions(beam_size=200, length_penalty=penalty)
    [[found, *_]] = search(stepper, case.batch([0]), VOCABULARY, options, [longest])
    batch = case.batch([0])
    best = max(forced_score(stepper, batch, one, penalty) for one in sequences(longest))
    assert found.score == pytest.approx(best, abs=1e-4)


def sequences(longest: int) -> Iterator[tuple[int, ...]]:
    """All that may be written: an end token at the end, or the greatest length."""
    usual = [4, 5, 6]  # neither padding nor unknown nor start, nor the end
    for length in range(longest):
        for tokens in itertools.product(usual, repeat=length):
            yield (*tokens, VOCABULARY.end)
    yield from itertools.product(usual, repeat=longest)


def forced_score(
    stepper: TorchStepper, batch: Any, tokens: tuple[int, ...], penalty: float
) -> float:
    decoding, token, total = stepper.start(batch), VOCABULARY.start, 0.0
    for following in tokens:
        total += float(decoding.scores(np.array([token]), None)[0, following])
        token = following
    return total / length_penalty(len(tokens), penalty)

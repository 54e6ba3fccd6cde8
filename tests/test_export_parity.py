from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import (
    VOCABULARY,
    Arrays,
    ToyDecoding,
    ToyModel,
    write_toy_bundle,
)

from seq2edge.export.dummies import Dummies
from seq2edge.export.near_ties import Judge, Tokens, best
from seq2edge.export.parity import (
    QualityLimits,
    check_sizes,
    compare_float,
    decode,
    refuse,
    searches,
)
from seq2edge.export.quality import compare_quantized, edit_distance
from seq2edge.export.sample import Sample
from seq2edge.runtime import manifest
from seq2edge.runtime.errors import ExportError, InputError, ParityError
from seq2edge.runtime.inputs import SOURCE
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray, Stepper
from seq2edge.runtime.translator import Translator

RANDOM = np.random.default_rng(0)
SOURCES: Sequence[Tokens] = [
    (*(int(token) for token in RANDOM.integers(4, VOCABULARY.size, length)), 3)
    for length in (3, 7, 1, 5, 9, 4, 2, 6, 8, 5)
]
SAMPLE = Sample.of_ids(SOURCES)
DUMMIES = Dummies.of(SAMPLE.examples, [SOURCE])


@dataclass
class Changed:
    """A toy model whose log-probabilities are changed by a function of the step."""

    model: ToyModel
    noise: float = 0.0  # of every log-probability
    worse: dict[int, float] = field(default_factory=dict)  # token to penalty
    broken_batch: int = 0  # a batch of this size fails

    def start(self, inputs: Inputs) -> "ChangedDecoding":
        if len(inputs["source"]) == self.broken_batch:
            raise InputError("encoder.onnx can't run on this input: Reshape")
        decoding = self.model.start(inputs)
        return ChangedDecoding(
            decoding.model, decoding.memory, decoding.state, change=self
        )


@dataclass
class ChangedDecoding(ToyDecoding):
    change: Changed = field(default_factory=lambda: Changed(ToyModel()))

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        log_probs = super().scores(tokens, parents)
        random = np.random.default_rng(int(np.abs(log_probs).sum() * 1e3))
        log_probs = log_probs + random.uniform(-1, 1, log_probs.shape).astype(
            np.float32
        ) * np.float32(self.change.noise)
        for token, penalty in self.change.worse.items():
            log_probs[:, token] -= np.float32(penalty)
        return log_probs


def translator(stepper: Stepper) -> Translator:
    return Translator(
        stepper=stepper,
        vocabulary=VOCABULARY,
        limits=manifest.Limits(50, 50),
        defaults=SearchOptions(beam_size=3),
    )


def silent(stage: str) -> None:
    pass


MODEL = ToyModel()
REFERENCE = translator(MODEL)


def test_a_real_bundle_equals_its_model(tmp_path: Path) -> None:
    model = write_toy_bundle(tmp_path / "bundle", seed=3)
    loaded = Translator.load(tmp_path / "bundle")
    check_sizes(translator(model), loaded, DUMMIES, QualityLimits())
    found = compare_float(translator(model), loaded, SAMPLE, silent)
    assert found.greedy.exact == found.beam.exact == len(SOURCES)
    assert found.log_prob_difference < 1e-3  # of log-probabilities around -50
    assert list(found.faults(QualityLimits())) == []


def test_tiny_noise_is_measured_and_its_near_ties_explained() -> None:
    noisy = translator(Changed(MODEL, noise=0.3))
    found = compare_float(REFERENCE, noisy, SAMPLE, silent)
    assert 0.25 < found.log_prob_difference < 0.31
    limits = QualityLimits(max_log_prob_difference=1.0, min_exact=0.0)
    assert found.greedy.exact < len(SOURCES)  # or the test shows nothing
    assert all(one.explained for one in found.greedy.differences)
    assert not [fault for fault in found.faults(limits) if "near tie" in fault]


def test_a_difference_that_noise_does_not_explain_is_a_fault() -> None:
    # The favourite tokens are taken away, which 0.01 can't explain.
    judge = Judge(REFERENCE, SAMPLE.examples, tolerance=0.01)
    greedy, _ = searches(REFERENCE.defaults)
    expected = decode(REFERENCE, SAMPLE, greedy)
    common = np.bincount([t for s in expected for t in s]).argsort()[-5:].tolist()
    changed = translator(Changed(MODEL, worse=dict.fromkeys(common, 20.0)))
    differences = judge.compare(greedy, expected, decode(changed, SAMPLE, greedy))
    assert differences
    assert not all(one.explained for one in differences)
    found = compare_float(REFERENCE, changed, SAMPLE, silent)
    faults = list(found.faults(QualityLimits()))
    assert any("a log-probability differs by 20" in fault for fault in faults)
    assert any("sentences are exact with beam 1" in fault for fault in faults)
    with pytest.raises(ParityError, match=r"the fp32 bundle differs.*; .*no bundle"):
        refuse(found.faults(QualityLimits()), "the fp32 bundle differs from PyTorch")


def test_a_gap_on_paper() -> None:
    greedy, _ = searches(REFERENCE.defaults)
    [expected] = decode(REFERENCE, Sample.of_ids(SOURCES[:1]), greedy)
    decoding = MODEL.start(
        {
            "source": np.array([SOURCES[0]]),
            "source_lengths": np.array([len(SOURCES[0])], np.int32),
        }
    )
    scores = decoding.scores(np.array([VOCABULARY.start]), None)[0]
    other = 5 if expected[0] != 5 else 6
    judge = Judge(REFERENCE, SAMPLE.examples, tolerance=0.0)
    [difference] = judge.compare(greedy, [expected], [(other, *expected[1:])])
    assert difference.sentence == 0
    assert difference.gap == pytest.approx(
        abs(scores[expected[0]] - scores[other]), abs=1e-5
    )


def test_one_explained_difference_is_allowed_in_a_small_sample() -> None:
    noisy = translator(Changed(MODEL, noise=0.3))
    found = compare_float(REFERENCE, noisy, SAMPLE, silent)
    one = replace(found.greedy, differences=found.greedy.differences[:1])
    limits = QualityLimits(min_exact=0.999, max_log_prob_difference=1.0)
    assert list(replace(found, greedy=one, beam=one).faults(limits)) == []
    two = replace(one, differences=one.differences * 2)
    faults = list(replace(found, greedy=two, beam=one).faults(limits))
    assert faults == ["8 of 10 sentences are exact with beam 1, and 9 are due"]


def test_a_frozen_size_is_found_and_named() -> None:
    broken = translator(Changed(MODEL, broken_batch=5))
    noisy = translator(Changed(MODEL, noise=0.1))
    with pytest.raises(ParityError, match=r"fail at batch 5.*Reshape.*frozen"):
        check_sizes(REFERENCE, broken, DUMMIES, QualityLimits())
    with pytest.raises(ParityError, match=r"differ from PyTorch by 0.* at batch 1"):
        check_sizes(REFERENCE, noisy, DUMMIES, QualityLimits())


def test_an_attention_that_differs_is_found_where_there_is_one() -> None:
    class Looks(ToyModel):
        def attended_step(self, token: IntArray, memory: Arrays, state: Arrays) -> Any:
            log_probs, attention, following = super().attended_step(
                token, memory, state
            )
            return log_probs, attention[:, ::-1], following

    other = translator(Looks(seed=3))
    reference = translator(ToyModel(seed=3))
    check_sizes(reference, other, DUMMIES, QualityLimits())
    check_sizes(reference, reference, DUMMIES, QualityLimits(), attends=True)
    with pytest.raises(ParityError, match=r"by 0.* at batch 1, source length 13"):
        check_sizes(reference, other, DUMMIES, QualityLimits(), attends=True)


def test_int8_is_judged_by_agreement_where_there_are_no_references() -> None:
    same = compare_quantized(REFERENCE, REFERENCE, SAMPLE, "bleu")
    assert (same.exact, same.agreement) == (len(SOURCES), 1.0)
    assert same.scores == {}
    assert list(same.faults(QualityLimits())) == []
    noisy = translator(Changed(MODEL, noise=2.0))
    other = compare_quantized(REFERENCE, noisy, SAMPLE, "bleu")
    assert other.agreement < 0.9
    assert any(
        "agrees with fp32 in" in fault for fault in other.faults(QualityLimits())
    )


def test_int8_is_judged_by_bleu_where_there_are_references(tmp_path: Path) -> None:
    write_toy_bundle(tmp_path / "bundle")
    loaded = Translator.load(tmp_path / "bundle")
    assert loaded.tokenizer is not None
    texts = [
        loaded.tokenizer.decode(one.tokens)
        for one in best(loaded, SOURCES, loaded.defaults)
    ]
    sample = replace(SAMPLE, references=tuple((text,) for text in texts))
    noisy = replace(loaded, stepper=Changed(MODEL, noise=2.0))
    found = compare_quantized(loaded, noisy, sample, "bleu")
    fp32, int8 = found.scores["bleu"]
    assert fp32 == pytest.approx(100)
    assert int8 < 90
    assert found.scores["chrf"][1] < 100
    [fault] = found.faults(QualityLimits())
    assert "int8 loses" in fault
    assert list(found.faults(QualityLimits(max_bleu_loss=100))) == []
    assert found.to_json()["bleu"] == {
        "fp32": 100.0,
        "int8": round(int8, 2),
        "loss": round(100 - int8, 2),
    }
    exact = compare_quantized(loaded, noisy, sample, "exact")
    assert exact.scores["exact"] == (100, 100 * exact.exact / len(SOURCES))
    assert "points of exact" in next(exact.faults(QualityLimits()))


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [([], [], 0), ([1, 2, 3], [1, 3], 1), ([1, 2], [2, 1], 2), ([], [4, 5], 2)],
)
def test_edit_distance_on_paper(one: list[int], other: list[int], edits: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == edits


@pytest.mark.parametrize(
    "limits",
    [{"min_exact": 1.5}, {"max_bleu_loss": -1.0}, {"max_log_prob_difference": -1.0}],
)
def test_limits_that_mean_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ExportError):
        QualityLimits(**limits)

"""A bundle that labels is judged by its labels, its logits and its stream."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from seq2edge.export import Limits, QualityLimits, Sample
from seq2edge.export.dummies import Dummies
from seq2edge.export.label_parity import (
    check_sizes,
    compare_int8_labels,
    compare_labels,
)
from seq2edge.runtime.errors import InputError, ParityError
from seq2edge.runtime.inputs import SOURCE
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.stepper import FloatArray, Inputs

LABELS = ("a", "b", "c")
IDS = [[4, 6, 5], [7], [9, 9, 4, 11, 5, 8], [3, 4]]
SAMPLE = Sample.of_ids(IDS)
Change = Callable[[FloatArray], FloatArray]


def same(logits: FloatArray) -> FloatArray:
    return logits


@dataclass
class Modulo:
    """A token's label is its id modulo the labels, unless somebody meddles."""

    change: Change = same
    of_stream: Change = same
    broken_batch: int = 0

    def logits(self, inputs: Inputs) -> FloatArray:
        source = inputs["source"].astype(np.int64)
        if len(source) == self.broken_batch:
            raise InputError("encoder.onnx can't run on this input: Reshape")
        return self.change(3 * np.eye(3, dtype=np.float32)[source % 3])

    def stream(self, rows: int) -> Any:
        labeller = self

        class Stream:
            def push(self, positions: Any) -> FloatArray:
                logits = 3 * np.eye(3, dtype=np.float32)[positions % 3]
                return labeller.of_stream(logits)

        return Stream()


def tagger(labeller: Modulo | None = None) -> Predictor:
    return Predictor(
        labeller=labeller or Modulo(),
        task="tagging",
        labels=LABELS,
        limits=Limits(50, 0),
        streams=True,
    )


def silent(stage: str) -> None:
    pass


def swapped(logits: FloatArray) -> FloatArray:
    return logits[..., [1, 0, 2]]


def faults(changed: Modulo) -> list[str]:
    found = compare_labels(tagger(), tagger(changed), SAMPLE, silent)
    return list(found.faults(QualityLimits()))


def test_equal_predictors_have_no_faults() -> None:
    found = compare_labels(tagger(), tagger(), SAMPLE, silent)
    assert (found.examples, found.exact, found.streamed) == (4, 4, 4)
    assert found.logit_difference == found.stream_difference == 0
    assert list(found.faults(QualityLimits())) == []
    assert found.to_json()["exact_share"] == 1


def test_another_label_is_a_fault_unless_it_was_a_near_tie() -> None:
    wrong = faults(Modulo(swapped))
    assert any("a logit differs by 3" in fault for fault in wrong)
    assert any("examples are exact, and 3 are due" in fault for fault in wrong)
    nearly = Modulo(lambda logits: logits * np.float32(0))  # all the same: label a
    found = compare_labels(tagger(nearly), tagger(Modulo(tiny)), SAMPLE, silent)
    assert found.exact < 4
    assert found.unexplained == ()


def tiny(logits: FloatArray) -> FloatArray:
    return logits * np.float32(1e-5)


def test_a_stream_that_differs_from_the_whole_pass_is_a_fault() -> None:
    [fault] = faults(Modulo(of_stream=lambda logits: logits + np.float32(0.5)))
    assert "a logit of the stream differs by 0.5" in fault


def test_a_frozen_size_is_found_and_named() -> None:
    dummies = Dummies.of(SAMPLE.examples, [SOURCE])
    check_sizes(tagger(), tagger(), dummies, QualityLimits())
    with pytest.raises(ParityError, match=r"fails at batch 5.*frozen in tracing"):
        check_sizes(tagger(), tagger(Modulo(broken_batch=5)), dummies, QualityLimits())
    with pytest.raises(ParityError, match=r"differs from PyTorch by 3 at batch 1"):
        check_sizes(tagger(), tagger(Modulo(swapped)), dummies, QualityLimits())


def test_int8_is_judged_by_accuracy_of_pass_and_stream() -> None:
    right = [(" ".join(LABELS[i % 3] for i in ids),) for ids in IDS]
    sample = replace(SAMPLE, references=tuple(right))
    good = compare_int8_labels(tagger(), tagger(), sample, silent)
    assert good.scores == {"accuracy": (100, 100), "stream_accuracy": (100, 100)}
    assert list(good.faults(QualityLimits())) == []
    bad = compare_int8_labels(tagger(), tagger(Modulo(swapped)), sample, silent)
    [fault] = bad.faults(QualityLimits())
    assert "points of accuracy" in fault
    halting = Modulo(of_stream=swapped)
    streamed = compare_int8_labels(tagger(), tagger(halting), sample, silent)
    [fault] = streamed.faults(QualityLimits())
    assert "points of stream accuracy" in fault


def test_int8_is_judged_by_agreement_where_there_are_no_references() -> None:
    bad = compare_int8_labels(tagger(), tagger(Modulo(swapped)), SAMPLE, silent)
    assert bad.scores == {}
    [fault] = bad.faults(QualityLimits())
    assert "int8 agrees with fp32 in" in fault

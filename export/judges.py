"""What an export is judged by: PyTorch, fp32 and quantized bundles on one sample.

A judge of a model that writes tokens decodes, one of a model that labels labels. It
also knows what a calibration reads: the encoder the sample, and a step the translations
that PyTorch gave, or the sequence itself where a stream tags it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seq2edge.export import label_parity, parity, quality
from seq2edge.export.calibrate import Batch
from seq2edge.export.dummies import Dummies
from seq2edge.export.examine import Guarded
from seq2edge.export.near_ties import Tokens
from seq2edge.export.parity import Note
from seq2edge.export.sample import Sample
from seq2edge.export.spec import ExportOptions, ModelSpec
from seq2edge.models.contract import attended_step
from seq2edge.models.torch_stepper import TorchLabeller, TorchStepper
from seq2edge.runtime.inputs import collate
from seq2edge.runtime.manifest import InputSpec
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.translator import Translator

CALIBRATION = 256  # examples: more change a range hardly, and are read one by one
CALIBRATION_BATCH = 16


@dataclass(frozen=True)
class Case:
    """The module, the sample and where its bundles lie."""

    module: Any  # EncodeModule
    spec: ModelSpec
    options: ExportOptions
    sample: Sample
    dummies: Dummies
    folder: Path  # holds fp32/, and int8/ or int4/
    note: Note

    @property
    def inputs(self) -> Sequence[InputSpec]:
        """What the encoder reads."""
        return self.dummies.inputs


class Judge(Protocol):
    """Compares the bundles of a case once they are written."""

    translations: Sequence[Tokens]  # of the sample, greedy; none where it labels

    def certify_float(self) -> Mapping[str, object]:
        """The fp32 part of the certificate; ParityError beyond a limit."""
        ...

    def calibration(self) -> list[Batch]:
        """Batches from all over the sample, and what each row's steps read."""
        ...

    def certify_quantized(self) -> Mapping[str, object]:
        """The part of int8 or int4 in the certificate; ParityError beyond a limit."""
        ...


def judge_of(case: Case) -> Judge:
    """The judge for the task of a case."""
    if case.spec.task == "generation":
        return GenerationJudge(case)
    return LabelJudge(case)


@dataclass
class GenerationJudge:
    """Judges a model that writes tokens."""

    case: Case
    translations: Sequence[Tokens] = field(default_factory=list)  # PyTorch's, greedy

    def certify_float(self) -> Mapping[str, object]:
        """Decode the sample with PyTorch and with the fp32 bundle."""
        case, limits = self.case, self.case.options.limits
        fp32 = self._load("fp32")
        stepper = TorchStepper(Guarded(case.module))
        batching = parity.REFERENCE_BATCHING
        reference = replace(fp32, stepper=stepper, batching=batching)
        case.note("comparing at sizes that were not traced")
        attends = attended_step(case.module) is not None
        parity.check_sizes(reference, fp32, case.dummies, limits, attends)
        found = parity.compare_float(reference, fp32, case.sample, case.note)
        parity.refuse(found.faults(limits), "the fp32 bundle differs from PyTorch")
        self.translations = found.translations
        return {"fp32": found.to_json()}

    def calibration(self) -> list[Batch]:
        """The sample, and its own translations behind the start token."""
        vocabulary = self.case.spec.vocabulary
        assert vocabulary is not None
        readings = [
            np.array([vocabulary.start, *tokens], np.int64)
            for tokens in self.translations
        ]
        return _batches(self.case, readings)

    def certify_quantized(self) -> Mapping[str, object]:
        """Decode the sample with both bundles."""
        case, precision = self.case, self.case.options.precision
        fp32, quantized = self._load("fp32"), self._load(precision)
        case.note(f"comparing {precision} with fp32, beam {fp32.defaults.beam_size}")
        found = quality.compare_quantized(
            fp32, quantized, case.sample, case.spec.judged_by, precision
        )
        parity.refuse(found.faults(case.options.limits), f"{precision} loses too much")
        return {precision: found.to_json()}

    def _load(self, precision: str) -> Translator:
        folder, batching = self.case.folder / precision, parity.BUNDLE_BATCHING
        return Translator.load(folder, batching=batching)


@dataclass
class LabelJudge:
    """Judges a model that labels."""

    case: Case
    translations: Sequence[Tokens] = ()

    def certify_float(self) -> Mapping[str, object]:
        """Label the sample with PyTorch and with the fp32 bundle."""
        case, limits = self.case, self.case.options.limits
        fp32 = self._load("fp32")
        labeller = TorchLabeller(Guarded(case.module), inputs=fp32.inputs)
        batching = parity.REFERENCE_BATCHING
        reference = replace(fp32, labeller=labeller, batching=batching)
        case.note("comparing at sizes that were not traced")
        label_parity.check_sizes(reference, fp32, case.dummies, limits)
        found = label_parity.compare_labels(reference, fp32, case.sample, case.note)
        parity.refuse(found.faults(limits), "the fp32 bundle differs from PyTorch")
        return {"fp32": found.to_json()}

    def calibration(self) -> list[Batch]:
        """The sample; a stream reads its sequences."""
        names = [spec.name for spec in self.case.inputs]
        readings = [example[names[0]] for example in self.case.sample.examples]
        return _batches(self.case, readings)

    def certify_quantized(self) -> Mapping[str, object]:
        """Label the sample with both bundles."""
        case, fp32, int8 = self.case, self._load("fp32"), self._load("int8")
        found = label_parity.compare_int8_labels(fp32, int8, case.sample, case.note)
        parity.refuse(found.faults(case.options.limits), "int8 loses too much")
        return {"int8": found.to_json()}

    def _load(self, precision: str) -> Predictor:
        folder, batching = self.case.folder / precision, parity.BUNDLE_BATCHING
        return Predictor.load(folder, batching=batching)


def _batches(case: Case, readings: Sequence[np.ndarray[Any, Any]]) -> list[Batch]:
    """Examples from all over the sample, in batches."""
    stride = -(-len(readings) // CALIBRATION)
    chosen = list(zip(case.sample.examples, readings, strict=True))[::stride]
    starts = range(0, len(chosen), CALIBRATION_BATCH)
    return [
        Batch(
            inputs=collate([example for example, _ in batch], case.inputs),
            readings=[reading for _, reading in batch],
            from_zeros=case.spec.task != "generation",
        )
        for batch in (chosen[first : first + CALIBRATION_BATCH] for first in starts)
    ]

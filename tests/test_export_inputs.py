"""Strangers' modules with other inputs than one sequence, and with other outputs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from toy_modules import END, START, VOCABULARY, AttentiveGru, build

from seq2edge.export import (
    ExportOptions,
    Limits,
    ModelSpec,
    QualityLimits,
    Recipe,
    Sample,
    Vocabulary,
    class_input,
    export_model,
    vector_input,
)
from seq2edge.runtime import Predictor, SearchOptions, Translator
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.verify import verify

Named = dict[str, Tensor]
TOKENS = Vocabulary(VOCABULARY, pad=0, unknown=3, start=START, end=END)
SPEC = ModelSpec("stranger", TOKENS, Limits(source_tokens=20, target_tokens=10))
INT8 = ExportOptions(
    "int8",
    recipe=Recipe(smallest=100, scan_from_hidden=1, anchored_from_hidden=1),
    limits=QualityLimits(min_agreement=0.0),
)
DRAW = np.random.default_rng(5)
IDS = [DRAW.integers(4, VOCABULARY, size).tolist() for size in (3, 8, 1, 5, 12, 2)]


class Decoder(nn.Module):
    """A GRU cell that begins with what `encode` made."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.cell = nn.GRUCell(8, 16)
        self.output = nn.Linear(16, VOCABULARY)

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        hidden = self.cell(self.embedding(token), state["hidden"])
        return self.output(hidden), {"hidden": hidden}


class Reads(Decoder):
    """Sequences of frames and tokens, a vector and a class, all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.ears = nn.LSTM(4, 16, batch_first=True)
        self.eyes = nn.GRU(8, 8, batch_first=True, bidirectional=True)
        self.map = nn.Linear(3, 16)
        self.style = nn.Embedding(2, 16)

    def encode(
        self,
        sound: Tensor,
        sound_lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        colour: Tensor,
        style: Tensor,
    ) -> tuple[Named, Named]:
        heard = pack_padded_sequence(sound, sound_lengths.cpu(), True, False)
        read = pack_padded_sequence(
            self.embedding(text), text_lengths.cpu(), True, False
        )
        _, (ears, _) = self.ears(heard)
        _, eyes = self.eyes(read)
        both = torch.cat([eyes[0], eyes[1]], dim=-1)
        hidden = ears[0] + both + self.map(colour) + self.style(style)
        return {}, {"hidden": torch.tanh(hidden)}


def everything(place: int, ids: list[int]) -> dict[str, Any]:
    return {
        "sound": DRAW.standard_normal((2 + place, 4)),
        "text": ids,
        "colour": DRAW.standard_normal(3),
        "style": place % 2,
    }


EVERYTHING = [everything(place, ids) for place, ids in enumerate(IDS)]


def inputs_of(sample: Sample) -> Any:
    from seq2edge.export.sample import infer_inputs

    plain = replace(
        sample,
        examples=tuple(
            {name: array for name, array in one.items() if name != "style"}
            for one in sample.examples
        ),
    )
    return (*infer_inputs(plain), class_input("style", ("plain", "grand")))


def test_inputs_of_all_kinds_at_once_export_to_int8(tmp_path: Path) -> None:
    module, sample = build(Reads), Sample.of(EVERYTHING)
    spec = replace(SPEC, inputs=inputs_of(sample))
    manifest = export_model(module, sample, tmp_path / "bundle", spec, INT8)
    assert [one.name for one in manifest.inputs] == ["sound", "text", "colour", "style"]
    assert verify(tmp_path / "bundle").passed
    translator = Translator.load(tmp_path / "bundle")
    # Alone and together, in int8 too.
    options = SearchOptions(beam_size=1)
    together = translator.generate(EVERYTHING, options)
    assert together == [translator.generate([one], options)[0] for one in EVERYTHING]


def test_a_class_without_labels_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"class_input\('style', labels\)"):
        export_model(build(Reads), Sample.of(EVERYTHING), tmp_path / "out", SPEC)


def test_a_sample_that_does_not_fit_its_inputs_is_named(tmp_path: Path) -> None:
    spec = replace(SPEC, inputs=(vector_input("colour", 5),))
    sample = Sample.of([{"colour": [1.0, 2.0]}])
    with pytest.raises(ExportError, match=r"the sample.*colour has shape \(2,\)"):
        export_model(build(Reads), sample, tmp_path / "out", spec)


class Sorted(AttentiveGru):
    """Packs with torch's default, which takes batches sorted by length only."""

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        packed = pack_padded_sequence(self.embedding(source), source_lengths, True)
        outputs, final = self.rnn(packed)
        values, _ = pad_packed_sequence(outputs, batch_first=True)
        mask = (torch.arange(values.shape[1]) >= source_lengths[:, None]) * -1e9
        hidden = torch.tanh(self.key(torch.cat([final[-2], final[-1]], dim=-1)))
        memory = {"values": values, "keys": self.key(values), "mask": mask.float()}
        return memory, {"hidden": hidden}


def test_a_module_that_asks_for_sorted_batches_gets_any(tmp_path: Path) -> None:
    sample = Sample.of_ids(IDS)
    export_model(build(Sorted), sample, tmp_path / "bundle", SPEC)
    certificate: Any = verify(tmp_path / "bundle")
    assert certificate.passed
    with pytest.raises(RuntimeError, match="sorted"):  # torch is as it was
        pack_padded_sequence(torch.zeros(2, 3, 1), torch.tensor([1, 3]), True)


class Short(Decoder):
    """Has a place for ten positions and no more, as tutorials with MAX_LENGTH do."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(10, 8)
        self.map = nn.Linear(8, 16)

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        positions = torch.arange(source.shape[1])
        inside = (positions < source_lengths[:, None]).unsqueeze(-1)
        read = torch.tanh(self.embedding(source) + self.places(positions)) * inside
        return {}, {"hidden": self.map(read.sum(dim=1))}


def test_a_module_with_few_positions_is_never_asked_for_more(tmp_path: Path) -> None:
    spec = replace(SPEC, limits=Limits(source_tokens=10, target_tokens=10))
    sample = Sample.of_ids([ids[:10] for ids in IDS])
    export_model(build(Short), sample, tmp_path / "bundle", spec)
    assert verify(tmp_path / "bundle").passed


class Classifier(nn.Module):
    """The last state of each sequence to three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.layer = nn.GRU(8, 16, batch_first=True)
        self.output = nn.Linear(16, 3)

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        embedded = self.embedding(source)
        packed = pack_padded_sequence(embedded, source_lengths.cpu(), True, False)
        return {"logits": self.output(self.layer(packed)[1][-1])}, {}


def test_a_classifier_is_an_encoder_alone(tmp_path: Path) -> None:
    module = build(Classifier)
    spec = ModelSpec(
        "classes", limits=SPEC.limits, task="classification", labels=("a", "b", "c")
    )
    references = [[("a", "b", "c")[len(ids) % 3]] for ids in IDS]
    sample = Sample.of([{"source": ids} for ids in IDS], references)
    options = replace(INT8, limits=QualityLimits(max_accuracy_loss=100))
    manifest = export_model(module, sample, tmp_path / "bundle", spec, options)
    assert manifest.heads == {}
    assert manifest.vocabulary is None
    certificate: Any = manifest.certificate
    assert certificate["fp32"]["exact"] == len(IDS)
    assert "accuracy" in certificate["int8"]
    predictor = Predictor.load(tmp_path / "bundle")
    found = predictor.predict(" ".join(map(str, IDS[1])))
    with torch.no_grad():
        lengths = torch.tensor([len(IDS[1])], dtype=torch.int32)
        logits = module.encode(torch.tensor([IDS[1]]), lengths)[0]["logits"][0]
    assert found.labels == ("abc"[int(logits.argmax())],)
    wrong = replace(spec, labels=("a", "b"))
    with pytest.raises(ExportError, match="gives logits of 3, and labels has 2"):
        export_model(module, sample, tmp_path / "out", wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": None}, "writes tokens needs a vocabulary"),
        ({"task": "tagging"}, "tagging needs labels"),
        ({"metric": "accuracy"}, "'accuracy' does not judge generation; use bleu"),
    ],
)
def test_a_spec_that_contradicts_its_task_is_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        replace(SPEC, **change)

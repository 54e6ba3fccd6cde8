"""Whole exports: of strangers' modules by their ids, and of a checkpoint of ours."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from toy_modules import END, START, VOCABULARY, AttentiveGru, PlainLstm, build
from traced_once import TRACES, traced_once

from seq2edge.describe import describe_bundle
from seq2edge.export import (
    ExportOptions,
    ModelSpec,
    QualityLimits,
    Recipe,
    Sample,
    export_checkpoint,
    export_model,
    pipeline,
)
from seq2edge.export.graph_files import Graphs
from seq2edge.export.graphs import Contract
from seq2edge.models import checkpoint as checkpoints
from seq2edge.models.about import About
from seq2edge.models.build import build_model
from seq2edge.models.checkpoint import (
    CheckpointInfo,
    distinct_weights,
    write_checkpoint,
)
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.runtime import bundle
from seq2edge.runtime.errors import ExportError, OutputError, ParityError
from seq2edge.runtime.inputs import SOURCE
from seq2edge.runtime.manifest import Limits, TokenizerSpec
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.translator import Translator
from seq2edge.runtime.verify import verify
from seq2edge.runtime.vocabulary import Vocabulary

RANDOM = np.random.default_rng(5)
SAMPLE = Sample.of_ids(
    [[*RANDOM.integers(4, VOCABULARY, size).tolist(), END] for size in range(1, 13)]
)
TOKENS = Vocabulary(VOCABULARY, pad=0, unknown=3, start=START, end=END)
SPEC = ModelSpec(
    name="stranger",
    vocabulary=TOKENS,
    limits=Limits(source_tokens=30, target_tokens=20),
    provenance={"licence": "CC0-1.0"},
)
INT8 = ExportOptions(
    precision="int8",
    recipe=Recipe(smallest=100),
    limits=QualityLimits(min_agreement=0.0),
)
TOKENIZER = Path(__file__).parent / "data" / "toy-fp32" / "source.spm"


@pytest.fixture(scope="module", autouse=True)
def graphs() -> Iterator[None]:
    with traced_once():
        yield


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's module in int8."""
    output = tmp_path_factory.mktemp("exported") / "stranger"
    export_model(build(AttentiveGru), SAMPLE, output, SPEC, INT8)
    return output


def test_the_bundle_holds_its_certificate_and_coverage(int8: Path) -> None:
    manifest = bundle.Bundle.load(int8).manifest
    assert manifest.precision == "int8"
    certificate: Any = manifest.certificate
    assert certificate["fp32"]["greedy"]["exact"] == len(SAMPLE.examples)
    assert certificate["fp32"]["beam"]["exact"] == len(SAMPLE.examples)
    assert certificate["fp32"]["largest_log_prob_difference"] < 1e-4
    assert 0 <= certificate["int8"]["agreement"] <= 1
    quantization: Any = manifest.quantization
    assert quantization["share"] > 0.9
    forms = {entry["weight"]: entry["forms"] for entry in quantization["quantized"]}
    assert forms["embedding.weight"] == ["table", "product"]
    assert forms["cell.weight_hh"] == ["product"]
    assert forms["rnn.onnx_R_0"] == ["stored"]
    provenance: Any = manifest.provenance
    assert provenance["licence"] == "CC0-1.0"
    assert provenance["versions"]["torch"] == torch.__version__


def test_int4_is_certified_as_int8_is(tmp_path: Path) -> None:
    options = replace(INT8, precision="int4")
    made = export_model(build(AttentiveGru), SAMPLE, tmp_path / "int4", SPEC, options)
    assert made.precision == "int4"
    certificate: Any = made.certificate
    assert 0 <= certificate["int4"]["agreement"] <= 1
    assert "int8" not in certificate
    quantization: Any = made.quantization
    forms = {entry["weight"]: entry["forms"] for entry in quantization["quantized"]}
    assert forms["embedding.weight"] == ["table", "product"]
    assert forms["cell.weight_hh"] == ["four bits"]
    assert verify(tmp_path / "int4").passed


def test_the_limits_of_int4_are_those_of_int8(tmp_path: Path) -> None:
    options = replace(INT8, precision="int4", limits=QualityLimits(min_agreement=1.0))
    with pytest.raises(ParityError, match="int4 agrees with fp32 in"):
        export_model(build(AttentiveGru), SAMPLE, tmp_path / "out", SPEC, options)


def test_int4_is_refused_where_no_tokens_are_written(tmp_path: Path) -> None:
    spec = ModelSpec("labels", task="tagging", labels=("a", "b"))
    with pytest.raises(ExportError, match="tagging, with precision int8"):
        export_model(
            build(PlainLstm), SAMPLE, tmp_path / "out", spec, ExportOptions("int4")
        )


def test_a_target_is_in_the_manifest_and_in_words(tmp_path: Path) -> None:
    options = ExportOptions(
        "int8", target="arm-i8mm", limits=QualityLimits(min_agreement=0.0)
    )
    made = export_model(build(PlainLstm), SAMPLE, tmp_path / "arm", SPEC, options)
    quantization: Any = made.quantization
    assert quantization["target"] == "arm-i8mm"
    assert quantization["product_bits"] == 8
    words = describe_bundle(bundle.Bundle.load(tmp_path / "arm"))
    assert words.startswith("stranger, int8 for arm-i8mm, generation, ")


def with_output_layer(size: int) -> onnx.ModelProto:
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", size])
    weight = numpy_helper.from_array(np.zeros((4, size), np.float32), "weight")
    node = helper.make_node("MatMul", ["state.hidden", "weight"], ["logits"])
    graph = helper.make_graph([node], "decoder", [], [logits], [weight])
    return helper.make_model(graph)


def test_what_a_shortlist_is_not_for_is_refused() -> None:
    none = onnx.ModelProto()
    contract = Contract("generation", (SOURCE,), (), (), ())
    small = Graphs("int8", none, with_output_layer(1023), chooses="shortlist")
    with pytest.raises(ExportError, match="1024 tokens or more"):
        small.head_files(contract)
    frames = replace(SOURCE, kind="frames", shape=("batch", "time", 4), dtype="float32")
    contract = Contract("generation", (frames,), (), (), ())
    large = Graphs("int8", none, with_output_layer(1024), chooses="shortlist")
    with pytest.raises(ExportError, match="one input of tokens"):
        large.head_files(contract)


@pytest.mark.parametrize(
    ("chooses", "more"),
    [
        ("steps", set()),
        ("drafts", {"draft", "verify", "beam_ahead"}),
        ("shortlist", {"shortlist", "ahead", "beam_ahead"}),
    ],
)
def test_a_recipe_says_among_what_heads_choose(chooses: Any, more: set[str]) -> None:
    decoder = with_output_layer(1024)  # the smallest that has them
    contract = Contract("generation", (SOURCE,), (), (), ())
    common = np.array([3])
    graphs = Graphs("int8", onnx.ModelProto(), decoder, chooses=chooses, common=common)
    heads = set(graphs.head_files(contract))
    assert heads == {"greedy", "beam", "scores"} | more


def test_the_graphs_say_what_they_are(int8: Path) -> None:
    for name in ("encoder", "decoder.greedy", "decoder.beam", "decoder.scores"):
        path = int8 / f"{name}.onnx"
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path, load_external_data=False)
        assert model.producer_name == "seq2edge"
        assert model.graph.name == name
        assert model.doc_string.startswith("stranger: ")
        properties = {entry.key: entry.value for entry in model.metadata_props}
        assert properties["licence"] == "CC0-1.0"


def test_nothing_is_left_beside_the_bundle(int8: Path) -> None:
    assert [path.name for path in int8.parent.iterdir()] == ["stranger"]


def test_a_second_export_in_one_process_equals_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trace in TRACES:
        monkeypatch.setattr(pipeline, trace.__name__, trace)
    module = build(PlainLstm).train()
    export_model(module, SAMPLE, tmp_path / "lstm", SPEC)
    assert module.training  # as it came
    exported = Translator.load(tmp_path / "lstm")
    reference = replace(exported, stepper=TorchStepper(module.eval()))
    # Never seen in the export.
    sources = [example["source"][::-1].tolist() for example in SAMPLE.examples]
    for options in (SearchOptions(beam_size=1), SearchOptions(beam_size=5)):
        assert [found[0].tokens for found in exported.generate(sources, options)] == [
            found[0].tokens for found in reference.generate(sources, options)
        ]


class ReadsPadding(AttentiveGru):
    """Forgets its mask: what stands in the padding changes the result."""

    def encode(self, source: Tensor, source_lengths: Tensor) -> Any:
        memory, state = super().encode(source, source_lengths)
        memory["mask"] = memory["mask"] * 0
        memory["values"] = (
            memory["values"] + self.embedding(source).mean(1)[:, None, :1]
        )
        return memory, state


def test_a_result_that_depends_on_padding_fails_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    with pytest.raises(ExportError, match="padding; use source_lengths"):
        export_model(build(ReadsPadding), SAMPLE, tmp_path / "out", SPEC)
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    spec = replace(SPEC, vocabulary=replace(TOKENS, size=60))
    with pytest.raises(ExportError, match=r"logits of 50, and vocabulary has 60"):
        export_model(build(PlainLstm), SAMPLE, tmp_path / "out", spec)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ExportError, match="precision 'int2'"):
        ExportOptions(precision="int2")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under a real tokenizer."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    config = RecurrentConfig(
        28, 28, embedding_size=12, encoder_hidden=10, decoder_hidden=14, cell="lstm"
    )
    info = CheckpointInfo(
        format=1,
        about=About("tiny", "en", "de", "CC0-1.0"),
        model=config,
        inputs=(SOURCE,),
        labels=(),
        metric="bleu",
        vocabulary=Vocabulary(28, 0, 1, 2, 3),
        tokenizer=TokenizerSpec("sentencepiece", "joint.spm", "joint.spm", True),
        limits=Limits(40, 12),
        search=SearchOptions(3, 0.6),
        training={},
    )
    weights = distinct_weights(build_model(config, seed=2), torch.float16)
    lines = ["one two\tzwei eins", "dog\tHund", "red sun red\trot"]
    files = {"joint.spm": TOKENIZER}
    write_checkpoint(path, info, weights, files, checkpoints.Sample(lines))
    return path


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Path:
    """The checkpoint's fp32 bundle."""
    output = checkpoint.parent / "bundle"
    export_checkpoint(checkpoint, output)
    return output


def test_a_checkpoint_becomes_a_bundle_that_verifies(tiny: Path) -> None:
    verification = verify(tiny)
    assert verification.passed
    assert verification.examples == 6  # three sentences, greedy and by beam
    assert verification.unlisted == ()


def test_provenance_names_the_checkpoint(tiny: Path) -> None:
    provenance: Any = bundle.Bundle.load(tiny).manifest.provenance
    assert provenance["checkpoint"] == "tiny"
    assert len(provenance["checkpoint_sha256"]) == 64
    assert provenance["source_language"] == "en"
    assert str(tiny.parent) not in json.dumps(provenance)


def test_a_missing_sample_or_checkpoint_is_named_before_any_work(
    checkpoint: Path, tmp_path: Path
) -> None:
    options = ExportOptions(sample=tmp_path / "none.tsv")
    with pytest.raises(ExportError, match=r"none.tsv: the sample can't be read"):
        export_checkpoint(checkpoint, tmp_path / "out", options)
    with pytest.raises(OutputError, match="is a file"):
        export_checkpoint(checkpoint, checkpoint / "config.json")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from seq2edge.export import export_checkpoint

def note(stage):
    if stage.startswith(sys.argv[4]):
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))

export_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]), None, note)
"""


@pytest.mark.parametrize(
    ("name", "stage"), [("SIGINT", "tracing the encoder"), ("SIGKILL", "comparing")]
)
def test_an_export_that_is_stopped_leaves_no_bundle(
    checkpoint: Path, tmp_path: Path, name: str, stage: str
) -> None:
    output = tmp_path / "out"
    program = [sys.executable, "-c", KILLED]
    arguments = [str(checkpoint), str(output), name, stage]
    done = subprocess.run(program + arguments, capture_output=True, check=False)
    assert done.returncode in (-getattr(signal, name), 128 + signal.SIGINT, 1)
    assert not output.exists()
    if name == "SIGINT":
        assert list(tmp_path.iterdir()) == []

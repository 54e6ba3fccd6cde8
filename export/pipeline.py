"""The steps of an export, in order: trace, write, compare, quantize, compare, publish.

Everything happens in a hidden folder beside the output; only a bundle that has passed
all its comparisons is renamed to its place.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from onnx import ModelProto
from torch import nn

from seq2edge.export import parity, quality, quantize
from seq2edge.export.calibrate import calibrate
from seq2edge.export.golden import golden_examples
from seq2edge.export.graphs import Contract, examine, example
from seq2edge.export.heads import HEADS
from seq2edge.export.metadata import describe, provenance
from seq2edge.export.near_ties import Tokens
from seq2edge.export.pack import check_target, publish, staging
from seq2edge.export.parity import Note
from seq2edge.export.sample import Sample
from seq2edge.export.spec import ExportOptions, ModelSpec
from seq2edge.export.trace import trace_encoder, trace_step
from seq2edge.export.weights import write_graphs
from seq2edge.models.checkpoint import SAMPLE, WEIGHTS, Checkpoint
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.runtime.bundle import FORMAT, Bundle, Manifest, hash_files
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.tokenizer import SentencePieceTokenizer
from seq2edge.runtime.translator import Translator, batch_inputs

__all__ = [
    "ExportOptions",
    "ModelSpec",
    "Sample",
    "export_checkpoint",
    "export_model",
]

ENCODER = "encoder.onnx"
TRACED = (3, 7, 2)  # batch, source length, beam: all different, none of them one
CALIBRATION = 256  # sentences: more change a range hardly, and are read one by one


@dataclass(frozen=True)
class _Graphs:
    """Encoder and decoder of one precision, before the heads."""

    precision: Literal["fp32", "int8"]
    encoder: ModelProto
    decoder: ModelProto
    quantization: Mapping[str, object] | None = None


def export_checkpoint(
    checkpoint: Path,
    output: Path,
    options: ExportOptions | None = None,
    note: Note = lambda stage: None,
) -> Manifest:
    """Export a checkpoint folder of ours; `note` is told each stage as it begins."""
    options = options or ExportOptions()
    check_target(output, options.force)
    note(f"loading {checkpoint}")
    loaded = Checkpoint.load(checkpoint)
    spec = _spec(loaded)
    limits = loaded.info.limits
    path = options.sample or checkpoint / SAMPLE
    sample = Sample.read(path, _tokenizer(spec), limits.source_tokens)
    return export_model(loaded.module, sample, output, spec, options, note)


def export_model(
    module: nn.Module,
    sample: Sample,
    output: Path,
    spec: ModelSpec,
    options: ExportOptions | None = None,
    note: Note = lambda stage: None,
) -> Manifest:
    """Export any module with `encode` and `step`; beyond a limit, ParityError."""
    options = options or ExportOptions()
    check_target(output, options.force)
    training = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with staging(output) as folder:
            return _Export(module, sample, spec, options, note, folder).run(output)
    finally:
        for part, mode in training:
            part.training = mode


@dataclass(frozen=True)
class _Export:
    """One export under way in its staging folder."""

    module: Any  # nn.Module and StepModule
    sample: Sample
    spec: ModelSpec
    options: ExportOptions
    note: Note
    folder: Path

    def run(self, output: Path) -> Manifest:
        contract, graphs = self._trace()
        self.note("writing the fp32 graphs")
        draft = self._write(graphs, contract)
        fp32 = self._load(graphs.precision)
        certificate, targets = self._certify_float(fp32)
        if self.options.precision == "int8":
            graphs = self._quantize(graphs, targets)
            self.note("writing the int8 graphs")
            draft = self._write(graphs, contract)
            certificate |= self._certify_int8(fp32)
        finished = self._finish(draft, certificate)
        publish(self.folder / graphs.precision, output, self.options.force)
        return finished

    def _trace(self) -> tuple[Contract, _Graphs]:
        sources, start = self.sample.sources, self.spec.vocabulary.start
        self.note("examining the module")
        contract = examine(self.module, sources, start)
        traced_with = example(self.module, sources, start, *TRACED)
        self.note("tracing the encoder")
        encoder = trace_encoder(self.module, contract, traced_with)
        self.note("tracing the decoder")
        decoder = trace_step(self.module, contract, traced_with)
        self._check_vocabulary(decoder)
        return contract, _Graphs("fp32", encoder, decoder)

    def _check_vocabulary(self, decoder: ModelProto) -> None:
        shape = decoder.graph.output[0].type.tensor_type.shape
        size = shape.dim[1].dim_value
        if size != self.spec.vocabulary.size:
            raise ExportError(
                f"step gives logits of {size} tokens, and the vocabulary has "
                f"{self.spec.vocabulary.size}; make the two agree"
            )

    def _quantize(self, graphs: _Graphs, targets: Sequence[Tokens]) -> _Graphs:
        self.note("calibrating")
        recipe = self.options.recipe
        activations = quantize.product_inputs(graphs.decoder, recipe)
        ranges = calibrate(
            graphs.encoder,
            graphs.decoder,
            activations,
            self._calibration(targets),
            self.spec.vocabulary.start,
        )
        self.note("quantizing")
        result = quantize.quantize(graphs.encoder, graphs.decoder, ranges, recipe)
        report = quantize.report(result, recipe)
        return _Graphs("int8", result.encoder, result.decoder, report)

    def _calibration(
        self, targets: Sequence[Tokens]
    ) -> list[tuple[Any, Sequence[Tokens]]]:
        """Batches of sentences from all over the sample, with their translations."""
        stride = -(-len(targets) // CALIBRATION)
        chosen = list(zip(self.sample.sources, targets, strict=True))[::stride]
        batches = [chosen[first : first + 16] for first in range(0, len(chosen), 16)]
        return [
            (batch_inputs([source for source, _ in batch]), [t for _, t in batch])
            for batch in batches
        ]

    def _write(self, graphs: _Graphs, contract: Contract) -> Manifest:
        """Fill a folder with all but the golden examples and the certificate."""
        folder = self.folder / graphs.precision
        folder.mkdir()
        heads = {name: make(graphs.decoder) for name, make in HEADS.items()}
        models = {ENCODER: graphs.encoder}
        models |= {f"decoder.{name}.onnx": model for name, model in heads.items()}
        for name, model in models.items():
            graph = name.removesuffix(".onnx")
            describe(model, graph, self.spec, graphs.precision)
        write_graphs(models, folder)
        for name, file in self.spec.tokenizer_files.items():
            shutil.copyfile(file, folder / name)
        manifest = self._manifest(graphs, contract)
        manifest.write(folder)
        return manifest

    def _manifest(self, graphs: _Graphs, contract: Contract) -> Manifest:
        return Manifest(
            format=FORMAT,
            task="sequence-to-sequence",
            name=self.spec.name,
            precision=graphs.precision,
            inputs=contract.inputs,
            memory=contract.memory,
            state=contract.state,
            vocabulary=self.spec.vocabulary,
            tokenizer=self.spec.tokenizer,
            limits=self.spec.limits,
            search=self.spec.search,
            encoder=ENCODER,
            heads={name: f"decoder.{name}.onnx" for name in HEADS},
            files=hash_files(self.folder / graphs.precision),
            quantization=graphs.quantization,
            certificate={},
            provenance=provenance(self.spec),
        )

    def _load(self, precision: str) -> Translator:
        return Translator.load(self.folder / precision, batching=parity.BUNDLE_BATCHING)

    def _certify_float(
        self, fp32: Translator
    ) -> tuple[dict[str, Any], Sequence[Tokens]]:
        """The fp32 part of the certificate, and PyTorch's greedy translations."""
        limits, sources = self.options.limits, self.sample.sources
        reference = Translator(
            stepper=TorchStepper(self.module),
            vocabulary=self.spec.vocabulary,
            limits=self.spec.limits,
            tokenizer=fp32.tokenizer,
            defaults=fp32.defaults,
            batching=parity.REFERENCE_BATCHING,
        )
        self.note("comparing at sizes that were not traced")
        parity.check_sizes(reference.stepper, fp32.stepper, sources, limits)
        found = parity.compare_float(reference, fp32, self.sample, self.note)
        parity.refuse(found.faults(limits), "the fp32 bundle differs from PyTorch")
        certificate = {
            "sample": {
                "origin": self.sample.origin,
                "sentences": len(sources),
                "too_long": self.sample.too_long,
                "references": bool(self.sample.references),
            },
            "limits": asdict(limits),
            "fp32": found.to_json(),
        }
        return certificate, found.translations

    def _certify_int8(self, fp32: Translator) -> dict[str, Any]:
        int8 = self._load("int8")
        found = quality.compare_int8(fp32, int8, self.sample, self.note)
        parity.refuse(found.faults(self.options.limits), "int8 loses too much")
        return {"int8": found.to_json()}

    def _finish(self, draft: Manifest, certificate: Mapping[str, object]) -> Manifest:
        """Add golden examples and certificate, and check the whole folder."""
        folder = self.folder / draft.precision
        if self.spec.tokenizer is not None:
            self.note("decoding the golden examples")
            translator = Translator.load(folder, check_hashes=False)
            golden_examples(translator, self.sample, draft.precision).write(folder)
        finished = replace(draft, files=hash_files(folder), certificate=certificate)
        finished.write(folder)
        return Bundle.load(folder).manifest


def _spec(checkpoint: Checkpoint) -> ModelSpec:
    path, info = checkpoint.path, checkpoint.info
    names = {info.tokenizer.source, info.tokenizer.target}
    return ModelSpec(
        name=info.about.name,
        vocabulary=info.vocabulary,
        limits=info.limits,
        search=info.search,
        tokenizer=info.tokenizer,
        tokenizer_files={name: path / name for name in names},
        provenance={
            **_without_name(asdict(info.about)),
            "checkpoint": path.resolve().name,
            "checkpoint_sha256": _sha256(path / WEIGHTS),
        },
    )


def _tokenizer(spec: ModelSpec) -> SentencePieceTokenizer:
    assert spec.tokenizer is not None  # every checkpoint has one
    files = spec.tokenizer_files
    source, target = files[spec.tokenizer.source], files[spec.tokenizer.target]
    return SentencePieceTokenizer.load(source, target, spec.tokenizer.append_end)


def _without_name(about: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in about.items() if key != "name"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

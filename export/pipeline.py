"""The steps of an export, in order: trace, write, compare, quantize, compare, publish.

Everything happens in a hidden folder beside the output; only a bundle that has passed
all its comparisons is renamed to its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from seq2edge.export import drafting, quantize
from seq2edge.export.calibrate import calibrate_encoder, calibrate_steps, second_moments
from seq2edge.export.context import multiply_before_mixing
from seq2edge.export.dependence import check_dependence
from seq2edge.export.dummies import Dummies
from seq2edge.export.examine import Subject, examine, traced_with
from seq2edge.export.golden import golden_examples
from seq2edge.export.graph_files import Graphs
from seq2edge.export.graphs import Contract
from seq2edge.export.heads import logits_width
from seq2edge.export.judges import Case, Judge, judge_of
from seq2edge.export.of_checkpoint import sample_of, spec_of
from seq2edge.export.output_layer import output_layer
from seq2edge.export.pack import check_target, publish, staging
from seq2edge.export.packing import any_order
from seq2edge.export.parity import Note
from seq2edge.export.recipe import Calibration, Moments, Ranges
from seq2edge.export.sample import Sample, infer_inputs
from seq2edge.export.spec import ExportOptions, ModelSpec
from seq2edge.export.trace import trace_encoder, trace_step
from seq2edge.models.loading import load_checkpoint
from seq2edge.runtime.bundle import Bundle, hash_files
from seq2edge.runtime.errors import ExportError, InputError
from seq2edge.runtime.inputs import checked_examples
from seq2edge.runtime.manifest import InputSpec, Manifest, Precision
from seq2edge.runtime.shortlist import Shortlist
from seq2edge.runtime.weighing import weigh

__all__ = [
    "ExportOptions",
    "ModelSpec",
    "Sample",
    "export_checkpoint",
    "export_model",
]

TRACED = (3, 7, 2)  # batch, source length, beam: all different, none of them one


def export_checkpoint(
    checkpoint: Path,
    output: Path,
    options: ExportOptions | None = None,
    note: Note = lambda stage: None,
) -> Manifest:
    """Export a checkpoint folder, ours or Hugging Face's, to a bundle.

    `note` is told each stage as it begins.
    """
    options = options or ExportOptions()
    check_target(output, options.force)
    note(f"loading {checkpoint}")
    loaded = load_checkpoint(checkpoint, options.languages)
    spec = spec_of(loaded)
    sample = sample_of(loaded, options.sample, note)
    return export_model(loaded.module, sample, output, spec, options, note)


def export_model(
    module: nn.Module,
    sample: Sample,
    output: Path,
    spec: ModelSpec,
    options: ExportOptions | None = None,
    note: Note = lambda stage: None,
) -> Manifest:
    """Export any module with `encode` and, unless it only labels, `step`.

    See `models.contract` for what they take and return, and docs/bring-your-own.md.
    ExportError says which rule a module breaks, ParityError which limit a bundle.
    """
    options = options or ExportOptions()
    if options.precision == "int4" and spec.task != "generation":
        raise ExportError(
            f"int4 is for the decoder of a model that writes tokens; export this one, "
            f"of {spec.task}, with precision int8"
        )
    check_target(output, options.force)
    training = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with any_order(), staging(output) as folder:
            return _Export(module, sample, spec, options, note, folder).run(output)
    finally:
        for part, mode in training:
            part.training = mode


@dataclass(frozen=True)
class _Export:
    """One export under way in its staging folder."""

    module: Any  # nn.Module and EncodeModule
    sample: Sample
    spec: ModelSpec
    options: ExportOptions
    note: Note
    folder: Path

    def run(self, output: Path) -> Manifest:
        inputs = self.spec.inputs or infer_inputs(self.sample)
        sample = self._checked(inputs)
        dummies = Dummies.of(sample.examples, inputs, self.spec.limits.source_tokens)
        contract, graphs = self._trace(dummies)
        self.note("writing the fp32 graphs")
        draft = graphs.write(contract, self.spec, self._folder(graphs))
        judge = judge_of(
            Case(
                self.module,
                self.spec,
                self.options,
                sample,
                dummies,
                self.folder,
                self.note,
            )
        )
        certificate = {**self._certificate(), **judge.certify_float()}
        shortlist = self._shortlist(contract, graphs, sample, judge)
        quantizes = self.options.precision != "fp32"
        if quantizes:
            graphs = self._quantize(graphs, judge)
        elif shortlist is not None:
            graphs = replace(graphs, chooses="drafts")
        if shortlist is not None:
            graphs = replace(graphs, common=shortlist.common)
        if quantizes or shortlist is not None:
            self.note(f"writing the {graphs.precision} graphs")
            draft = graphs.write(contract, self.spec, self._folder(graphs))
        if shortlist is not None:
            draft = self._with_shortlist(draft, shortlist)
        if quantizes:
            certificate |= judge.certify_quantized()
        if shortlist is not None:
            certificate |= self._certify_shortlist(draft, shortlist, sample, judge)
        finished = self._finish(draft, sample, certificate)
        publish(self._folder(graphs), output, self.options.force)
        return finished

    def _folder(self, of: Graphs | Manifest) -> Path:
        """Where a precision's bundle is made."""
        return self.folder / of.precision

    def _checked(self, inputs: Sequence[InputSpec]) -> Sample:
        """The sample with its arrays in the types that the inputs have."""
        sample, longest = self.sample, self.spec.limits.source_tokens
        try:
            typed = tuple(checked_examples(sample.examples, inputs, longest))
        except InputError as error:
            raise ExportError(f"the sample, {sample.origin}: {error}") from None
        return replace(sample, examples=typed)

    def _trace(self, dummies: Dummies) -> tuple[Contract, Graphs]:
        vocabulary = self.spec.vocabulary
        start = vocabulary.start if vocabulary else 0
        subject = Subject(self.module, self.spec.task, dummies, start)
        self.note("examining the module")
        contract = examine(subject)
        check_dependence(subject)
        example = traced_with(subject, *TRACED)
        self.note("tracing the encoder")
        encoder = trace_encoder(self.module, contract, example)
        decoder = None
        if contract.state:
            self.note("tracing the decoder")
            decoder = trace_step(self.module, contract, example)
            encoder, decoder, contract = multiply_before_mixing(
                encoder, decoder, contract
            )
        graphs = Graphs("fp32", encoder, decoder)
        self._check_width(graphs)
        return contract, graphs

    def _check_width(self, graphs: Graphs) -> None:
        """The last axis of the logits is the vocabulary, or the labels."""
        vocabulary, labels = self.spec.vocabulary, self.spec.labels
        if vocabulary is not None and graphs.decoder is not None:
            size, what, due = (
                logits_width(graphs.decoder),
                "vocabulary",
                vocabulary.size,
            )
        else:
            size, what, due = logits_width(graphs.encoder), "labels", len(labels)
        if size != due:
            raise ExportError(
                f"the module gives logits of {size}, and {what} has {due}; make the "
                "two agree"
            )

    def _quantize(self, graphs: Graphs, judge: Judge) -> Graphs:
        self.note("calibrating")
        recipe = self.options.quantization
        encoder, decoder = graphs.encoder, graphs.decoder
        batches = judge.calibration()
        of_encoder = calibrate_encoder(
            encoder,
            quantize.encoder_activations(encoder, recipe),
            [batch.inputs for batch in batches],
        )
        of_decoder: Ranges = {}
        moments: Moments = {}
        if decoder is not None:
            activations = quantize.product_inputs(decoder, recipe)
            of_decoder = calibrate_steps(encoder, decoder, activations, batches)
            if recipe.layer_bits == 4:
                moments = second_moments(encoder, decoder, activations, batches)
        self.note("quantizing")
        ranges = Calibration(of_encoder, of_decoder, moments)
        result = quantize.quantize(encoder, decoder, ranges, recipe)
        report = quantize.report(result, recipe)
        precision = cast(Precision, self.options.precision)  # checked in the options
        return Graphs(precision, result.encoder, result.decoder, report, recipe.chooses)

    def _shortlist(
        self, contract: Contract, graphs: Graphs, sample: Sample, judge: Judge
    ) -> Shortlist | None:
        """Learn from the fp32 bundle what a source may become, if heads will ask."""
        options, decoder = self.options, graphs.decoder
        wanted = options.precision == "fp32" or options.quantization.chooses != "steps"
        if decoder is None or not wanted or not contract.reads_tokens:
            return None
        if contract.task != "generation" or output_layer(decoder) is None:
            return None
        self.note("learning the shortlist")
        [spec] = contract.inputs
        sources = [example[spec.name] for example in sample.examples]
        size = drafting.source_size(graphs.encoder, spec.name, sources)
        folder, translations = self._folder(graphs), judge.translations
        return drafting.learn_shortlist(folder, sources, translations, size)

    def _with_shortlist(self, draft: Manifest, shortlist: Shortlist) -> Manifest:
        """Put it beside the graphs."""
        folder = self._folder(draft)
        shortlist.save(folder / drafting.FILE)
        draft = replace(draft, files=hash_files(folder), shortlist=drafting.FILE)
        draft.write(folder)
        return draft

    def _certify_shortlist(
        self, draft: Manifest, shortlist: Shortlist, sample: Sample, judge: Judge
    ) -> Mapping[str, object]:
        """Compare several steps at once with single ones."""
        self.note("comparing several steps at once with single ones")
        folder, share = self._folder(draft), self.options.limits.min_exact
        name = "drafts" if "draft" in draft.heads else "shortlist"
        found = drafting.check_drafts(
            folder, shortlist, sample, judge.translations, share
        )
        return {name: found}

    def _certificate(self) -> dict[str, Any]:
        """What the figures were measured on, and their limits."""
        sample = self.sample
        return {
            "sample": {
                "origin": sample.origin,
                "examples": len(sample.examples),
                "too_long": sample.too_long,
                "references": bool(sample.references),
            },
            "limits": asdict(self.options.limits),
        }

    def _finish(
        self, draft: Manifest, sample: Sample, certificate: Mapping[str, object]
    ) -> Manifest:
        """Add golden examples and certificate, and check the whole folder."""
        folder = self._folder(draft)
        self.note("running the golden examples")
        golden_examples(folder, sample, draft).write(folder)
        self.note("weighing")
        finished = replace(
            draft,
            files=hash_files(folder),
            certificate=certificate,
            footprint=weigh(folder),
        )
        finished.write(folder)
        return Bundle.load(folder).manifest

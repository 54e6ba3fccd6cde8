"""Encoder and decoder of one precision, and the folder that they become.

All of a bundle but its golden examples and certificate: graphs with their weights,
tokenizer files, manifest.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from seq2edge.export.graphs import Contract
from seq2edge.export.heads import MakeHead, heads_of
from seq2edge.export.metadata import describe, provenance
from seq2edge.export.recipe import Chooses
from seq2edge.export.spec import ModelSpec
from seq2edge.export.weights import shared_tables, write_graphs
from seq2edge.runtime.bundle import hash_files
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.manifest import FORMAT, Manifest, Precision

ENCODER = "encoder.onnx"


@dataclass(frozen=True)
class Graphs:
    """Encoder and decoder of one precision, before the heads."""

    precision: Precision
    encoder: ModelProto
    decoder: ModelProto | None  # None: a model that goes no steps
    quantization: Mapping[str, object] | None = None
    chooses: Chooses = "steps"
    common: NDArray[np.integer] | None = None  # tokens of a shortlist

    def models(self, contract: Contract) -> dict[str, ModelProto]:
        """The graphs of a bundle, by their files' names."""
        models = {ENCODER: self.encoder}
        if self.decoder is not None:
            for name, make in self._heads(contract).items():
                models[_head_file(name)] = make(self.decoder)
        return models

    def head_files(self, contract: Contract) -> dict[str, str]:
        """The file of each head."""
        return {name: _head_file(name) for name in self._heads(contract)}

    def write(self, contract: Contract, spec: ModelSpec, folder: Path) -> Manifest:
        """Fill the folder, which is made anew."""
        if folder.exists():  # fp32, which its shortlist was learnt from
            shutil.rmtree(folder)
        folder.mkdir()
        models = self.models(contract)
        for name, model in models.items():
            describe(model, name.removesuffix(".onnx"), spec, self.precision)
        write_graphs(models, folder)
        for name, file in spec.tokenizer_files.items():
            shutil.copyfile(file, folder / name)
        manifest = self._manifest(contract, spec, folder)
        manifest.write(folder)
        return manifest

    def _heads(self, contract: Contract) -> Mapping[str, MakeHead]:
        if self.decoder is None:
            return {}
        if self.chooses == "shortlist" and not contract.reads_tokens:
            raise ExportError(
                "a shortlist is for models that read one input of tokens; export this "
                "one without"
            )
        chooses = self.chooses if contract.reads_tokens else "steps"
        return heads_of(self.decoder, contract.task, chooses, self.common)

    def _manifest(self, contract: Contract, spec: ModelSpec, folder: Path) -> Manifest:
        writes, heads = contract.task == "generation", self.head_files(contract)
        return Manifest(
            format=FORMAT,
            task=contract.task,
            name=spec.name,
            precision=self.precision,
            inputs=contract.inputs,
            memory=contract.memory,
            outputs=contract.outputs,
            state=contract.state,
            labels=() if writes else spec.labels,
            vocabulary=spec.vocabulary if writes else None,
            tokenizer=spec.tokenizer,
            limits=spec.limits if writes else replace(spec.limits, target_tokens=0),
            search=spec.search if writes else None,
            encoder=ENCODER,
            heads=heads,
            files=hash_files(folder),
            quantization=self.quantization,
            certificate={},
            provenance=provenance(spec),
            tables=shared_tables(folder, [ENCODER, *heads.values()]),
        )


def _head_file(head: str) -> str:
    """The file of a head's graph."""
    return f"decoder.{head}.onnx"

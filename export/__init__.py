"""Export PyTorch models to ONNX, prove them equal, quantize and pack them."""

from seq2edge.export.parity import QualityLimits
from seq2edge.export.pipeline import export_checkpoint, export_model
from seq2edge.export.recipe import Recipe
from seq2edge.export.sample import Sample
from seq2edge.export.spec import ExportOptions, ModelSpec
from seq2edge.models.contract import AligningModule, EncodeModule, StepModule
from seq2edge.runtime.inputs import (
    class_input,
    frames_input,
    tokens_input,
    vector_input,
)
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.vocabulary import Vocabulary

__all__ = [
    "AligningModule",
    "EncodeModule",
    "ExportOptions",
    "Limits",
    "ModelSpec",
    "QualityLimits",
    "Recipe",
    "Sample",
    "StepModule",
    "Vocabulary",
    "class_input",
    "export_checkpoint",
    "export_model",
    "frames_input",
    "tokens_input",
    "vector_input",
]

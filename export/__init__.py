"""Export PyTorch models to ONNX, prove them equal, quantize and pack them."""

from seq2edge.export.parity import Limits
from seq2edge.export.pipeline import export_checkpoint, export_model
from seq2edge.export.quantize import Recipe
from seq2edge.export.sample import Sample
from seq2edge.export.spec import ExportOptions, ModelSpec

__all__ = [
    "ExportOptions",
    "Limits",
    "ModelSpec",
    "Recipe",
    "Sample",
    "export_checkpoint",
    "export_model",
]

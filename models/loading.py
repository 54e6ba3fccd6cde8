"""A checkpoint folder to a model, whoever wrote it: seq2edge, or transformers."""

from pathlib import Path

from seq2edge.models.checkpoint import Checkpoint
from seq2edge.models.hf_checkpoint import load_huggingface
from seq2edge.models.hf_folder import is_huggingface


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and check a folder; CheckpointError says what is wrong with it."""
    if is_huggingface(folder):
        return load_huggingface(folder)
    return Checkpoint.load(folder)

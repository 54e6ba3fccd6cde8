"""A checkpoint folder to a model, whoever wrote it: seq2edge, or transformers."""

from pathlib import Path

from seq2edge.models.checkpoint import Checkpoint
from seq2edge.models.hf_checkpoint import load_huggingface
from seq2edge.models.hf_folder import is_huggingface
from seq2edge.runtime.languages import LanguagePair, in_languages


def load_checkpoint(folder: Path, languages: LanguagePair | None = None) -> Checkpoint:
    """Read and check a folder; CheckpointError says what is wrong with it.

    languages: what a multilingual model is told; ConfigError names the known ones.
    """
    languages = languages or LanguagePair()
    if is_huggingface(folder):
        return load_huggingface(folder, languages)
    in_languages(None, languages.source, languages.target)
    return Checkpoint.load(folder)

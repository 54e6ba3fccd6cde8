"""Make the bundles in tests/data anew: python tests/make_bundles.py

Trained toy models by which the runtime is tested where neither torch nor onnx is
installed: a translator (see toy_language) in fp32 and int8, a tagger that also goes
word by word and a transcriber of frames (see toy_tasks) in int8.
"""

import tempfile
from pathlib import Path

import torch
from toy_language import recipe, write_corpus
from toy_tasks import TASKS

from seq2edge.export import ExportOptions, export_checkpoint
from seq2edge.models.train import train

DATA = Path(__file__).parent / "data"
TOYS = {"tagger": "tagger", "frames": "frames"}  # bundle to task


def main() -> None:
    """Train, then export."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_corpus(folder)
        checkpoint = train(recipe(), folder, folder / "toy", print)
        for precision in ("fp32", "int8"):
            _export(checkpoint, f"toy-{precision}", precision)
    for name, task in TOYS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            TASKS[task].write(folder)
            checkpoint = train(TASKS[task].recipe(), folder, folder / "toy", print)
            _export(checkpoint, f"toy-{name}-int8", "int8")


def _export(checkpoint: Path, name: str, precision: str) -> None:
    options = ExportOptions(precision=precision, force=True)
    export_checkpoint(checkpoint, DATA / name, options, print)


if __name__ == "__main__":
    main()

"""Make the bundles in tests/data anew: python tests/make_bundles.py

A trained toy model (see toy_language) in fp32 and int8, by which the runtime is tested
where neither torch nor onnx is installed.
"""

import tempfile
from pathlib import Path

import torch
from toy_language import recipe, write_corpus

from seq2edge.export import ExportOptions, export_checkpoint
from seq2edge.models.train import train

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Train, then export in both precisions."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_corpus(folder)
        checkpoint = train(recipe(), folder, folder / "toy", print)
        for precision in ("fp32", "int8"):
            options = ExportOptions(precision=precision, force=True)
            export_checkpoint(checkpoint, DATA / f"toy-{precision}", options, print)


if __name__ == "__main__":
    main()

"""A recurrent model here, and in PyTorch: eager, TorchScript and torch.compile.

    python benchmarks/recurrent_peers.py CHECKPOINT TEST.tsv... --output docs

CHECKPOINT is one of seq2edge's own, such as recipe-gru.toml makes. The protocol is that
of peers.py, greedy, in batches of 1 and 32; the same search drives all of them. Writes
benchmarks-CELL.json, .md and a plot, e.g. benchmarks-gru.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peers import candidates_of, command_line, parser_of, protocol_of
from peers_build import count_weights, named_bundles, our_entries
from peers_measure import about_machine, measure, note, versions
from peers_process import Entry
from peers_tables import write_page
from recurrent_page import page, plots, stem

PACKAGES = ("seq2edge", "onnxruntime", "numpy", "torch")
BASE = "PyTorch eager"
STEPS = {BASE: "Eager", "TorchScript": "TorchScript", "torch.compile": "Compiled"}

SIZES = (
    *("cell", "attention", "encoder_layers", "encoder_hidden", "bidirectional"),
    *("decoder_layers", "decoder_hidden", "embedding_size", "target_vocabulary"),
)


def torch_entries(checkpoint: Path, without: set[str]) -> Iterator[Entry]:
    """The same checkpoint, its step in each form."""
    for name, kind in STEPS.items():
        if name not in without:
            files = ("*.safetensors",)
            yield Entry(name, f"recurrent_contenders.{kind}", checkpoint, files)


def absent() -> dict[str, str]:
    """Contenders that can't be had on this machine, and why."""
    from recurrent_contenders import compiler_fault

    fault = compiler_fault()
    return {"torch.compile": fault} if fault else {}


def tokenizer_of(checkpoint: Path) -> Callable[[str], list[int]]:
    """Text to ids, as the checkpoint reads it."""
    from seq2edge.models.loading import load_checkpoint
    from seq2edge.runtime.tokenizer import load_tokenizer

    spec = load_checkpoint(checkpoint).info.tokenizer
    if spec is None:
        raise SystemExit(f"{checkpoint} has no tokenizer; give one that reads text")
    return load_tokenizer(spec, checkpoint).encode


def about_recurrent(checkpoint: Path) -> dict[str, Any]:
    """The configuration, and the size."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    sizes = {key: config["model"][key] for key in SIZES}
    name = config["about"]["name"]
    return {"name": name, "parameters": count_weights(checkpoint)} | sizes


def main() -> None:
    """Export, compare, measure, write."""
    machine = about_machine()
    arguments = parser_of(__doc__, Path("out/recurrent-peers")).parse_args()
    checkpoint, work = arguments.checkpoint, arguments.work
    work.mkdir(parents=True, exist_ok=True)
    protocol = protocol_of(arguments, BASE, BASE, (1,), (1, 32))
    note("exporting")
    ready, without = named_bundles(arguments.bundle), absent()
    entries = [
        *our_entries(checkpoint, work, ("fp32",), ready),
        *torch_entries(checkpoint, {*without}),
    ]
    sources = candidates_of(arguments, tokenizer_of(checkpoint))
    record = {
        "command": command_line("recurrent_peers.py"),
        "machine": machine,
        "model": about_recurrent(checkpoint),
        "versions": versions(PACKAGES),
        "absent": without,
        **measure(entries, sources, protocol, work / "workers.log"),
    }
    write_page(record, arguments.output / stem(record), page)
    plots(record, arguments.output)


if __name__ == "__main__":
    main()

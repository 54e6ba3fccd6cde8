"""A MarianMT model here, and in CTranslate2, Optimum and transformers, side by side.

    python benchmarks/peers.py CHECKPOINT CORPUS.tsv... --output docs

converts the folder for everyone, compares the tokens, then the time: greedy and beam 4,
in batches of 1, 8 and 32 sentences of about 20 tokens that all contenders translate to
equally many tokens, none forced to a length. Each has a process of its own; rounds
alternate. Then cold start, memory and size. Writes benchmarks.json, .md and plots.
Anything else that runs spoils it.
"""

import argparse
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from peers_build import (
    PEER,
    REFERENCE,
    about_marian,
    named_bundles,
    our_entries,
    peer_entries,
)
from peers_measure import Protocol, about_machine, measure, note, versions
from peers_page import page, plots
from peers_tables import write_page
from peers_work import CHOICE, Candidates, candidates, read_sources

PACKAGES = (
    *("seq2edge", "onnxruntime", "numpy", "ctranslate2", "optimum", "optimum-onnx"),
    *("transformers", "torch"),
)


def positive(text: str) -> int:
    """A number of one or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} must be at least 1")
    return number


def parser_of(doc: str | None, out: Path) -> argparse.ArgumentParser:
    """The options of a benchmark against peers."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("corpora", type=Path, nargs="+", help="source TAB target")
    parser.add_argument("--output", type=Path, required=True, help="of the page")
    parser.add_argument("--work", type=Path, default=out, help="of what is converted")
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a ready bundle, as contender `seq2edge NAME`; fp32 and int8 replace ours",
    )
    parser.add_argument("--threads", type=positive, nargs="+", default=[1])
    parser.add_argument("--batches", type=positive, nargs="+")
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--starts", type=positive, default=7)
    parser.add_argument("--candidates", type=positive, default=300)
    parser.add_argument("--sentences", type=positive, default=32, help="that are timed")
    return parser


def protocol_of(
    arguments: argparse.Namespace,
    reference: str,
    base: str,
    beams: tuple[int, ...],
    batches: tuple[int, ...],
) -> Protocol:
    """How much the options ask for; `batches` unless they say others."""
    return Protocol(
        reference,
        base,
        beams,
        batches=tuple(arguments.batches or batches),
        threads=tuple(arguments.threads),
        sentences=arguments.sentences,
        rounds=arguments.rounds,
        starts=arguments.starts,
    )


def command_line(program: str) -> str:
    """As it was given, without the folders of this machine."""
    shown = [_without_folder(argument) for argument in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{program}", *shown])


def _without_folder(argument: str) -> str:
    name, equals, path = argument.rpartition("=")
    return f"{name}{equals}{Path(path).name if Path(path).is_absolute() else path}"


def candidates_of(
    arguments: argparse.Namespace, encode: Callable[[str], list[int]]
) -> Candidates:
    """What the corpora offer."""
    texts, most = read_sources(arguments.corpora), arguments.candidates
    return candidates(texts, encode, min(most, CHOICE * arguments.sentences), most)


def tokenizer_of(checkpoint: Path) -> Callable[[str], list[int]]:
    """Text to ids, as transformers reads it."""
    from transformers import AutoTokenizer

    warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return lambda text: list(tokenizer(text)["input_ids"])


def main() -> None:
    """Convert, compare, measure, write."""
    arguments = parser_of(__doc__, Path("out/peers")).parse_args()
    machine = about_machine()  # before it is busy with conversions
    checkpoint, work = arguments.checkpoint, arguments.work
    work.mkdir(parents=True, exist_ok=True)
    ready = named_bundles(arguments.bundle)
    base = f"{PEER} int8"
    protocol = protocol_of(arguments, REFERENCE, base, (1, 4), (1, 8, 32))
    note("converting")
    entries = [
        *our_entries(checkpoint, work, ("fp32", "int8"), ready),
        *peer_entries(checkpoint, work, ready),
    ]
    sources = candidates_of(arguments, tokenizer_of(checkpoint))
    record = {
        "command": command_line("peers.py"),
        "machine": machine,
        "model": about_marian(checkpoint),
        "versions": versions(PACKAGES),
        **measure(entries, sources, protocol, work / "workers.log"),
    }
    write_page(record, arguments.output / "benchmarks", page)
    plots(record, arguments.output)


if __name__ == "__main__":
    main()

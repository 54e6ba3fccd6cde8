"""The page and the plot of recurrent_peers.py.

    python benchmarks/recurrent_page.py docs

makes them anew from the records.
"""

from collections.abc import Iterator
from pathlib import Path

from peers_plots import plot_speed
from peers_tables import Record, again, body, bound, settings

INTRO = """\
# A model of {upper} layers, against PyTorch

Made by

    {command}

on {bound}
The record is [{stem}.json]({stem}.json).

The model is {name}, {parameters:,} parameters: {encoder_layers} layers of {upper}
({encoder_hidden} features{directions}), {decoder_layers} in the decoder
({decoder_hidden} features, attention: {attention}), {target_vocabulary:,} tokens, fp32.
All contenders have the same weights and the same greedy search, seq2edge's own: it
drives the bundle's graphs or, as in training, the module. TorchScript and torch.compile
have the step compiled, the encoder stays PyTorch's own recurrent layers, and so do
the log-softmax and the choice of the best token, which the bundle has in its graph.

![tokens a second]({stem}-speed.svg)
"""

PARITY = """\
## The same tokens?

All candidates, each alone.
"""

TIME = """\
## Time

Medians of {rounds} rounds, quartiles in brackets. In a round every contender does the
same work once, in an order drawn anew, each in a process of its own that was warmed up.
*Times as fast* is the median of {base} over the contender's. Excluded: the tokenizer,
loading, compiling, and the talk between the processes.

The candidates are {drawn:,} of the corpus's {found:,} sentences with 20 tokens
(± {slack}).
"""

START = """\
## Start, memory, size

As in [benchmarks.md](benchmarks.md). torch.compile's start includes compiling, from the
second time on with the compiler's cache on disk; the first isn't counted. The model's
size is that of the checkpoint for all but seq2edge, which may hold half precision.
"""


def page(record: Record) -> str:
    """The record as Markdown."""
    model = record["model"]
    directions = ", two directions" if model["bidirectional"] else ""
    intro = INTRO.format(
        command=record["command"],
        bound=bound(record),
        directions=directions,
        stem=stem(record),
        upper=model["cell"].upper(),
        **model,
    )
    lines = [
        intro,
        *settings(record),
        *_absent(record),
        *body(record, PARITY, TIME, START),
    ]
    return "\n".join(lines) + "\n"


def _absent(record: Record) -> Iterator[str]:
    for name, fault in record["absent"].items():
        yield f"- {name}: not to be had on this machine ({fault})"


def plots(record: Record, output: Path) -> None:
    """Every plot of the page."""
    plot_speed(record, output / f"{stem(record)}-speed.svg")


def stem(record: Record) -> str:
    """What the names of the page's files begin with."""
    return f"benchmarks-{record['model']['cell']}"


if __name__ == "__main__":
    again(__doc__, "benchmarks-*", page, plots)

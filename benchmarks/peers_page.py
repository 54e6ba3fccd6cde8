"""The page and the plots of peers.py.

    python benchmarks/peers_page.py docs

makes them anew from the record.
"""

from pathlib import Path

from peers_plots import plot_speed, plot_starts
from peers_tables import Record, again, body, bound, settings

INTRO = """\
# Against CTranslate2, Optimum and transformers

Made by

    {command}

on {bound}
The record with everything is [benchmarks.json](benchmarks.json).

The model is {name}, a MarianMT of {parameters:,} parameters: {encoder_layers} encoder
and {decoder_layers} decoder layers of {d_model} features, {vocab_size:,} tokens.
seq2edge runs its bundles; CTranslate2 what its own converter wrote; Optimum is
transformers' search over onnxruntime, with the graphs of its own exporter; transformers
computes in PyTorch, not compiled.

![tokens a second](benchmarks-speed.svg)

What they say of their settings:
"""

PARITY = """\
## The same tokens?

All candidates, each alone. A beam of 4 ends for all of them when 4 translations have
ended, which is CTranslate2's rule and transformers' early_stopping, or at 64 tokens;
which of them are looked at differs still. The length penalty is 1 everywhere, which is
what the model's generation config means.
"""

TIME = """\
## Time

Medians of {rounds} rounds, quartiles in brackets. In a round every contender does the
same work once, in an order drawn anew, each in a process of its own that was warmed up.
*Times as fast* is the median of {base} over the contender's, of the same
rounds: above 1 is faster than {base}. Tokens are those written, without end
tokens; nobody is forced to a length. Excluded: the tokenizer on both sides (sentences
come as ids, for CTranslate2 as pieces), loading, and the talk between the processes.

The candidates are {drawn:,} of the corpus's {found:,} sentences with 20 tokens
(± {slack}).
"""

START = """\
## Start, memory, size

*Start* is from the start of a process to its first translation of one sentence, greedy,
the interpreter and all imports included: medians of fresh processes that take turns,
{starts} of each, with the files in the cache. *Memory* is resident memory of a fresh
process, the files that it maps included: when it has loaded, after it has translated
the work three times, and the peak meanwhile (not while loading). What a library imports
is part of both: Optimum and transformers need PyTorch, and seq2edge alone checks hashes
and loads a tokenizer; its heads load with the first search. *Model* is graphs and
weights on disk: of a bundle the heads of all searches, of the rest what is loaded.

![start and memory](benchmarks-start.svg)
"""


def page(record: Record) -> str:
    """The record as Markdown."""
    start = START.format(starts=record["protocol"]["starts"])
    lines = [
        INTRO.format(command=record["command"], bound=bound(record), **record["model"]),
        *settings(record),
        *body(record, PARITY, TIME, start),
    ]
    return "\n".join(lines) + "\n"


def plots(record: Record, output: Path) -> None:
    """Every plot of the page."""
    plot_speed(record, output / "benchmarks-speed.svg")
    plot_starts(record, output / "benchmarks-start.svg")


if __name__ == "__main__":
    again(__doc__, "benchmarks", page, plots)

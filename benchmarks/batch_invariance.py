"""Do the other sentences of a batch change a sentence, or the threads? They must not.

    python benchmarks/batch_invariance.py BUNDLE TEST.tsv [--batchings 10000]

Decodes every source alone, then in random batchings: so many times a batch of 1 to
`--largest` sentences drawn from all, with each number of `--threads` in turn. Counts
the batches in which the tokens of a sentence differ from those it has alone, and prints
the largest difference of a log-probability, which is 0 where nothing at all differs.
Greedy, alone by drafts where the bundle has them, and with a beam of `--beam-size`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.translator import Batching, Translator

SEED = 7


@dataclass
class Differences:
    """What was found in all batches."""

    batches: int = 0
    sentences: int = 0
    differing: int = 0  # batches
    largest: float = 0.0  # difference of a token's log-probability

    def add(self, alone: Sequence[Hypothesis], together: Sequence[Hypothesis]) -> None:
        """Compare the sentences of one batch."""
        pairs = list(zip(alone, together, strict=True))
        self.batches += 1
        self.sentences += len(pairs)
        self.differing += any(one.tokens != other.tokens for one, other in pairs)
        for one, other in pairs:
            if one.tokens == other.tokens:
                gaps = zip(one.token_log_probs, other.token_log_probs, strict=True)
                self.largest = max(self.largest, *(abs(a - b) for a, b in gaps))


def compare(
    translators: Sequence[Translator],
    sources: list[list[int]],
    options: SearchOptions,
    batchings: int,
    largest: int,
) -> Differences:
    """Each sentence alone against itself in company; the translators take turns."""
    first, found = translators[0], Differences()
    alone = [first.generate([source], options)[0][0] for source in sources]
    draw = random.Random(SEED)
    for number in range(batchings):
        batch = draw.choices(range(len(sources)), k=draw.randint(1, largest))
        translator = translators[number % len(translators)]
        results = translator.generate([sources[place] for place in batch], options)
        found.add([alone[place] for place in batch], [best for best, *_ in results])
    return found


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--batchings", default=1000, show_default=True)
@click.option("--largest", default=16, show_default=True, help="Sentences of a batch.")
@click.option("--beam-size", default=4, show_default=True)
@click.option("--threads", multiple=True, default=(1, 2), show_default=True)
@click.option("--longest", default=100, show_default=True, help="Tokens to be written.")
def main(
    bundle: Path,
    corpus: Path,
    batchings: int,
    largest: int,
    beam_size: int,
    threads: tuple[int, ...],
    longest: int,
) -> None:
    """Compare each sentence alone with itself in company."""
    lines = corpus.read_text(encoding="utf-8").splitlines()
    texts = list(dict.fromkeys(line.partition("\t")[0] for line in lines))
    translators = [
        Translator.load(bundle, EngineOptions(each), Batching(100_000, 64))
        for each in threads
    ]
    tokenizer = translators[0].tokenizer
    assert tokenizer
    sources = [tokenizer.encode(text) for text in texts]
    for beam in dict.fromkeys((1, beam_size)):
        defaults = translators[0].defaults
        options = replace(defaults, beam_size=beam, n_best=1, max_length=longest)
        found = compare(translators, sources, options, batchings, largest)
        names = ", ".join(map(str, threads))
        print(
            f"beam {beam}, threads {names}: {found.differing} of {found.batches} "
            f"batches ({found.sentences} sentences) differ from sentences alone, "
            f"log-probabilities by {found.largest:g} at most",
            flush=True,
        )


if __name__ == "__main__":
    main()

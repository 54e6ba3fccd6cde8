"""Do the other sentences of a batch change a sentence? They must not.

    python benchmarks/batch_invariance.py BUNDLE TEST.tsv

Decodes every source alone, then in shuffled batches of 7 and of 64, greedily and with
beam 5, and counts the sentences whose tokens differ.
"""

import random
from pathlib import Path

import click

from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.translator import Batching, Translator


def decode(
    translator: Translator,
    options: SearchOptions,
    sources: list[list[int]],
    order: list[int],
    size: int,
) -> list[tuple[int, ...]]:
    """Tokens of every source, decoded `size` at a time in the given order."""
    found: list[tuple[int, ...]] = [()] * len(sources)
    for first in range(0, len(order), size):
        batch = order[first : first + size]
        results = translator.generate([sources[index] for index in batch], options)
        for index, hypotheses in zip(batch, results, strict=True):
            found[index] = hypotheses[0].tokens
    return found


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("corpus", type=click.Path(path_type=Path))
def main(bundle: Path, corpus: Path) -> None:
    """Compare each sentence alone with itself in company."""
    lines = corpus.read_text(encoding="utf-8").splitlines()
    texts = list(dict.fromkeys(line.partition("\t")[0] for line in lines))
    for beam_size in (1, 5):
        translator = Translator.load(bundle, batching=Batching(100_000, 64))
        options = SearchOptions(beam_size, translator.defaults.length_penalty)
        assert translator.tokenizer
        sources = [translator.tokenizer.encode(text) for text in texts]
        order = list(range(len(sources)))
        alone = decode(translator, options, sources, order, 1)
        for size in (7, 64):
            random.Random(size).shuffle(order)
            together = decode(translator, options, sources, order, size)
            differing = sum(a != b for a, b in zip(alone, together, strict=True))
            print(
                f"beam {beam_size}, shuffled batches of {size}: "
                f"{differing} of {len(sources)} sentences differ"
            )


if __name__ == "__main__":
    main()

"""How far are a quantized bundle's log-probabilities from fp32's?

    python benchmarks/log_probs.py FP32 SOURCE BUNDLE...

Translates the different lines of SOURCE greedily with FP32, and has each bundle score
these translations. Prints the root of the mean squared difference of a token's
log-probability. Unlike BLEU it doesn't hang on near ties, nor on the few sentences that
a model repeats itself in.
"""

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.translator import Translator

GREEDY = SearchOptions(beam_size=1, max_length=40)


def log_probs(
    bundle: Path, sources: list[str], targets: list[str]
) -> NDArray[np.float64]:
    """Of every token of every target, one behind the other."""
    scores = Translator.load(bundle).score_batch(sources, targets)
    return np.concatenate([np.asarray(one.log_probs) for one in scores])


@click.command()
@click.argument("fp32", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1, required=True)
def main(fp32: Path, source: Path, bundles: tuple[Path, ...]) -> None:
    """Compare each bundle with the fp32 one."""
    lines = list(dict.fromkeys(source.read_text(encoding="utf-8").splitlines()))
    found = Translator.load(fp32).translate_batch(lines, GREEDY)
    kept = [not one.flags.hit_length_limit and bool(one.text) for one in found]
    sources = [line for line, keep in zip(lines, kept, strict=True) if keep]
    targets = [one.text for one, keep in zip(found, kept, strict=True) if keep]
    expected = log_probs(fp32, sources, targets)
    print(f"{len(targets)} translations, {len(expected)} tokens")
    for bundle in bundles:
        difference = log_probs(bundle, sources, targets) - expected
        print(f"{bundle}: {np.sqrt(np.square(difference).mean()):.4f}")


if __name__ == "__main__":
    main()

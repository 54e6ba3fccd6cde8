"""The toy task of the three examples: say a string of digits backwards.

Sentences are lists of ids; a source ends with END, an answer is without START and END.
"""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from seq2edge.runtime import SearchOptions, Translator

PAD, START, END = 0, 1, 2
FIRST_DIGIT = 3
VOCABULARY = FIRST_DIGIT + 10
GOAL = 0.95  # of the held-out strings, reversed without a fault

Ids = list[int]
Answer = Callable[[Sequence[Ids]], list[Ids]]


def sources(shortest: int, longest: int, count: int, seed: int) -> list[Ids]:
    """So many different strings of each length, or all of them if there are fewer."""
    generator = random.Random(seed)
    found = []
    for length in range(shortest, longest + 1):
        numbers = generator.sample(range(10**length), min(count, 10**length))
        found += [_ids(f"{number:0{length}}") for number in numbers]
    return found


def split(longest: int, seed: int = 0) -> tuple[list[Ids], list[Ids]]:
    """Strings to train on and others, held out, of every length from 2."""
    found = sources(1, longest, 4000, seed)
    random.Random(seed).shuffle(found)
    held_out = [source for source in found if len(source) > 2][:400]
    known = {tuple(source) for source in held_out}
    return [source for source in found if tuple(source) not in known], held_out


def batches(
    found: Sequence[Ids], size: int, steps: int, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random batches: source (batch, time), lengths (batch,), target (batch, time)."""
    generator = random.Random(seed)
    for _ in range(steps):
        chosen = generator.choices(found, k=size)
        targets = [[START, *answer(source), END] for source in chosen]
        yield padded(chosen), lengths(chosen), padded(targets)


def padded(sentences: Sequence[Ids]) -> Tensor:
    """A rectangle of ids."""
    longest = max(map(len, sentences))
    return torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in sentences])


def lengths(sentences: Sequence[Ids]) -> Tensor:
    """How many ids of each row are no padding."""
    return torch.tensor([len(ids) for ids in sentences])


def answer(source: Ids) -> Ids:
    """What should come out."""
    return source[-2::-1]


def until_end(rows: Sequence[Ids]) -> list[Ids]:
    """Decoded rows without their end token and what follows it."""
    return [row[: row.index(END)] if END in row else row for row in rows]


def bundle_answer(path: Path) -> Answer:
    """Greedy decoding with an exported bundle, without torch."""
    translator = Translator.load(path)
    options = SearchOptions(beam_size=1)
    return lambda found: [
        list(hypotheses[0].tokens) for hypotheses in translator.generate(found, options)
    ]


def accuracy(answers: Sequence[Ids], found: Sequence[Ids]) -> float:
    """The share of sources that were reversed without a fault."""
    right = sum(given == answer(ids) for given, ids in zip(answers, found, strict=True))
    return right / len(found)


def report(model: Answer, output: Path, held_out: Sequence[Ids]) -> None:
    """Print examples and accuracies of model and bundles; exit 1 below the goal."""
    deciders = {"torch": model} | {
        name: bundle_answer(output / name) for name in ("fp32", "int8")
    }
    for source, given in zip(held_out[:3], deciders["int8"](held_out[:3]), strict=True):
        print(f"{_text(source[:-1])} backwards is {_text(given)}, says int8")
    shares = {
        name: accuracy(decide(held_out), held_out) for name, decide in deciders.items()
    }
    for name, share in shares.items():
        print(f"{name}: {share:.1%} of {len(held_out)} held-out strings are right")
    if min(shares.values()) < GOAL:
        sys.exit(f"missed the goal of {GOAL:.0%}")


def _ids(digits: str) -> Ids:
    return [*(FIRST_DIGIT + int(digit) for digit in digits), END]


def _text(ids: Ids) -> str:
    return "".join(str(one - FIRST_DIGIT) for one in ids)

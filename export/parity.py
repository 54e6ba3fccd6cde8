"""Does the bundle say what PyTorch says? Measured, limited, and written down.

Both sides decode the same sample through the same search, in batches of different size.
A sentence that comes out otherwise must be explained by a near tie.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from seq2edge.export.dummies import Dummies
from seq2edge.export.near_ties import (
    Difference,
    Judge,
    Tokens,
    best,
    forced,
)
from seq2edge.export.sample import Sample
from seq2edge.runtime.batching import Batching
from seq2edge.runtime.errors import ExportError, InputError, ParityError
from seq2edge.runtime.inputs import collate
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.stepper import Inputs, IntArray, Stepper
from seq2edge.runtime.translator import Translator

REFERENCE_BATCHING = Batching(sentences=16)
BUNDLE_BATCHING = Batching(sentences=7)  # another: a batch must change nothing
# batch, source length, beam: none was traced with, and there are ones among them, for
# an exporter likes to take an axis of one for a constant.
SIZES = ((1, 1, 1), (1, 13, 3), (5, 2, 1), (2, 6, 5))

Note = Callable[[str], object]


@dataclass(frozen=True)
class QualityLimits:
    """Beyond any of these an export fails."""

    min_exact: float = 0.999  # of sentences, in fp32; one explained is always allowed
    max_log_prob_difference: float = 1e-3  # in fp32, of any token at any step
    max_bleu_loss: float = 0.5  # of int8 against fp32, where there are references
    max_accuracy_loss: float = 1.0  # points, where a share of right ones is judged
    min_agreement: float = 0.9  # of tokens, int8 with fp32, where there are none

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if not (0 <= self.min_exact <= 1 and 0 <= self.min_agreement <= 1):
            raise ExportError("min_exact and min_agreement are shares, from 0 to 1")
        most = (
            self.max_log_prob_difference,
            self.max_bleu_loss,
            self.max_accuracy_loss,
        )
        if min(most) < 0:
            raise ExportError("a limit of a difference can't be negative")


@dataclass(frozen=True)
class Comparison:
    """One search over the whole sample, on both sides."""

    beam_size: int
    sentences: int
    differences: tuple[Difference, ...]

    @property
    def exact(self) -> int:
        """Sentences that came out token for token the same."""
        return self.sentences - len(self.differences)

    def to_json(self) -> dict[str, object]:
        """For the certificate."""
        return {
            "beam_size": self.beam_size,
            "sentences": self.sentences,
            "exact": self.exact,
            "exact_share": round(self.exact / self.sentences, 6),
            "explained": sum(one.explained for one in self.differences),
            "differences": [asdict(one) for one in self.differences],
        }


@dataclass(frozen=True)
class FloatParity:
    """The fp32 bundle against PyTorch."""

    greedy: Comparison
    beam: Comparison
    log_prob_difference: float
    translations: tuple[Tokens, ...]  # PyTorch's, greedy

    def to_json(self) -> dict[str, object]:
        """For the certificate."""
        return {
            "greedy": self.greedy.to_json(),
            "beam": self.beam.to_json(),
            "largest_log_prob_difference": self.log_prob_difference,
        }

    def faults(self, limits: QualityLimits) -> Iterator[str]:
        """What is beyond the limits."""
        if self.log_prob_difference > limits.max_log_prob_difference:
            yield (
                f"a log-probability differs by {self.log_prob_difference:.2g}, more "
                f"than {limits.max_log_prob_difference:g}"
            )
        for comparison in (self.greedy, self.beam):
            name = f"with beam {comparison.beam_size}"
            needed = int(limits.min_exact * comparison.sentences)
            if comparison.exact < needed:
                yield (
                    f"{comparison.exact} of {comparison.sentences} sentences are exact "
                    f"{name}, and {needed} are due"
                )
            strange = [d.sentence for d in comparison.differences if not d.explained]
            if strange:
                yield (
                    f"sentences {', '.join(map(str, strange[:5]))} differ {name} "
                    "without a near tie"
                )


def check_sizes(
    reference: Translator,
    bundle: Translator,
    dummies: Dummies,
    limits: QualityLimits,
    attends: bool = False,
) -> None:
    """Both sides must agree at sizes that were not traced; ParityError names them.

    Those that show their attention must agree on it too.
    """
    for batch, length, beam in SIZES:
        sizes = f"batch {batch}, source length {length}, beam {beam}"
        inputs = dummies.arrays(batch, length)
        vocabulary = reference.vocabulary
        tokens = (vocabulary.start + np.arange(batch)) % vocabulary.size
        steppers = (reference.stepper, bundle.stepper)
        try:
            difference = _step_difference(steppers, inputs, tokens, beam, attends)
        except InputError as error:
            raise ParityError(
                f"the exported graphs fail at {sizes}: {error}; "
                "an axis was frozen in tracing"
            ) from None
        if difference > limits.max_log_prob_difference:
            raise ParityError(
                f"the exported graphs differ from PyTorch by {difference:.2g} at "
                f"{sizes}; does a result depend on padding, or on a traced size?"
            )


def compare_float(
    reference: Translator, bundle: Translator, sample: Sample, note: Note
) -> FloatParity:
    """Decode the sample on both sides, greedily and by beam, and measure."""
    greedy, beam = searches(reference.defaults)
    expected = decode(reference, sample, greedy)
    note(f"comparing with PyTorch, greedy, {len(sample.examples)} examples")
    largest = _forced_difference(reference, bundle, sample, expected)
    # Each of two candidates may be off by as much.
    judge = Judge(reference, sample.examples, 2 * largest)

    def compare(options: SearchOptions, expected: Sequence[Tokens]) -> Comparison:
        found = decode(bundle, sample, options)
        differences = judge.compare(options, expected, found)
        return Comparison(options.beam_size, len(found), differences)

    in_greedy = compare(greedy, expected)
    note(f"comparing with PyTorch, beam {beam.beam_size}")
    in_beam = compare(beam, decode(reference, sample, beam))
    return FloatParity(in_greedy, in_beam, largest, tuple(expected))


def decode(
    translator: Translator, sample: Sample, options: SearchOptions
) -> list[Tokens]:
    """The tokens of the best hypothesis of every sentence."""
    return [one.tokens for one in best(translator, sample.examples, options)]


def searches(defaults: SearchOptions) -> tuple[SearchOptions, SearchOptions]:
    """Greedy search, and the model's own beam search (4 if it has none)."""
    beam = defaults.beam_size if defaults.beam_size > 1 else 4
    return defaults.with_beam(1), defaults.with_beam(beam)


def _forced_difference(
    reference: Translator,
    bundle: Translator,
    sample: Sample,
    targets: Sequence[Tokens],
) -> float:
    """The largest difference of any log-probability while both read the targets."""
    largest = 0.0
    size = REFERENCE_BATCHING.sentences
    for first in range(0, len(targets), size):
        chosen = targets[first : first + size]
        examples = sample.examples[first : first + size]
        inputs = collate(examples, reference.inputs)
        sides = zip(
            forced(reference, inputs, chosen),
            forced(bundle, inputs, chosen),
            strict=True,
        )
        for (expected, live), (found, _) in sides:
            difference = np.abs(expected - found)[live]
            largest = max(largest, float(difference.max()))
    return largest


def _step_difference(
    steppers: Iterable[Stepper],
    inputs: Inputs,
    tokens: IntArray,
    beam: int,
    attends: bool,
) -> float:
    """The largest difference over one narrow and two wide steps."""
    batch = len(tokens)
    parents = np.repeat(np.arange(batch), beam)
    swapped = np.arange(batch * beam).reshape(batch, beam)[:, ::-1].ravel().copy()
    both = []
    for stepper in steppers:
        decoding = stepper.start(inputs)
        found = [
            decoding.scores(tokens, None),
            decoding.scores(tokens[parents], parents),
            decoding.scores(tokens[parents], swapped),
        ]
        if attends:
            found.append(decoding.attended(tokens[parents], swapped, 1)[2])
        both.append(found)
    return max(
        float(np.abs(one - other).max()) for one, other in zip(*both, strict=True)
    )


def refuse(faults: Iterator[str], what: str) -> None:
    """Raise ParityError with all that is beyond its limit."""
    if found := list(faults):
        raise ParityError(
            f"{what}: {'; '.join(found)}; no bundle was written: mend the model, give "
            "another sample or widen the limits"
        )

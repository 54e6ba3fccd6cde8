"""Does a bundle that labels say what PyTorch says, and what does int8 cost it?

Both sides label the same sample, in batches of different size; a label that comes out
otherwise must be explained by a near tie. A stream, which goes position by position,
must say what the whole pass of its own bundle says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seq2edge.export.dummies import Dummies
from seq2edge.export.parity import Note, QualityLimits
from seq2edge.export.quality import Pair, QuantizedParity
from seq2edge.export.sample import Sample
from seq2edge.runtime.errors import InputError, ParityError
from seq2edge.runtime.evaluate import label_accuracy, labels_of
from seq2edge.runtime.inputs import Example
from seq2edge.runtime.manifest import Task
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.stepper import FloatArray

SIZES = ((1, 1), (1, 13), (5, 2), (8, 6))  # batch, length: none was traced with
STREAMED = 50  # examples, position by position


@dataclass(frozen=True)
class LabelParity:
    """The fp32 bundle against PyTorch."""

    examples: int
    exact: int  # examples whose labels are all the same
    unexplained: tuple[int, ...]  # examples with another label and no near tie
    logit_difference: float
    streamed: int  # examples that were also read position by position
    stream_difference: float  # of a logit, from the whole pass

    def to_json(self) -> dict[str, object]:
        """For the certificate."""
        found: dict[str, object] = {
            "examples": self.examples,
            "exact": self.exact,
            "exact_share": round(self.exact / self.examples, 6),
            "largest_logit_difference": self.logit_difference,
        }
        if self.streamed:
            found["stream"] = {
                "examples": self.streamed,
                "largest_logit_difference": self.stream_difference,
            }
        return found

    def faults(self, limits: QualityLimits) -> Iterator[str]:
        """What is beyond the limits."""
        most = limits.max_log_prob_difference
        for what, found in (
            ("a logit", self.logit_difference),
            ("a logit of the stream", self.stream_difference),
        ):
            if found > most:
                yield f"{what} differs by {found:.2g}, more than {most:g}"
        needed = int(limits.min_exact * self.examples)
        if self.exact < needed:
            yield (
                f"{self.exact} of {self.examples} examples are exact, and {needed} "
                "are due"
            )
        if self.unexplained:
            shown = ", ".join(map(str, self.unexplained[:5]))
            yield f"examples {shown} differ without a near tie"


def check_sizes(
    reference: Predictor, bundle: Predictor, dummies: Dummies, limits: QualityLimits
) -> None:
    """Both sides must agree at sizes that were not traced; ParityError names them."""
    for batch, length in SIZES:
        sizes = f"batch {batch}, length {length}"
        examples = dummies.examples(batch, length)
        try:
            pairs = zip(
                reference.logits(examples), bundle.logits(examples), strict=True
            )
            difference = max(_apart(one, other) for one, other in pairs)
        except InputError as error:
            raise ParityError(
                f"the exported graph fails at {sizes}: {error}; "
                "an axis was frozen in tracing"
            ) from None
        if difference > limits.max_log_prob_difference:
            raise ParityError(
                f"the exported graph differs from PyTorch by {difference:.2g} at "
                f"{sizes}; does a result depend on padding, or on a traced size?"
            )


def compare_labels(
    reference: Predictor, bundle: Predictor, sample: Sample, note: Note
) -> LabelParity:
    """Label the sample on both sides, and measure."""
    note(f"comparing with PyTorch, {len(sample.examples)} examples")
    expected = reference.logits(sample.examples)
    found = bundle.logits(sample.examples)
    pairs = list(zip(expected, found, strict=True))
    largest = max(_apart(one, other) for one, other in pairs)
    differing = [i for i, (one, other) in enumerate(pairs) if _differ(one, other)]
    streamed = sample.examples[:STREAMED] if bundle.streams else ()
    return LabelParity(
        examples=len(pairs),
        exact=len(pairs) - len(differing),
        unexplained=tuple(
            i for i in differing if not _is_near_tie(*pairs[i], 2 * largest)
        ),
        logit_difference=largest,
        streamed=len(streamed),
        stream_difference=_largest(found, _stream_logits(bundle, streamed)),
    )


def compare_int8_labels(
    fp32: Predictor, int8: Predictor, sample: Sample, note: Note
) -> QuantizedParity:
    """Label the sample with both bundles and judge by its references, if any."""
    note("comparing int8 with fp32")
    both = [_labels(side, side.logits(sample.examples)) for side in (fp32, int8)]
    pairs = list(zip(*both, strict=True))
    agreement = label_accuracy(both[1], both[0])
    scores = _accuracies(both, sample, fp32.task)
    if int8.streams:
        # Its products are others than the whole pass's: it is judged for itself.
        some = sample.examples[:STREAMED]
        streamed = [_labels(side, _stream_logits(side, some)) for side in (fp32, int8)]
        agreement = min(agreement, label_accuracy(streamed[1], streamed[0]))
        found = _accuracies(streamed, sample, fp32.task)
        scores |= {f"stream_{name}": pair for name, pair in found.items()}
    return QuantizedParity(
        examples=len(pairs),
        exact=sum(one == other for one, other in pairs),
        agreement=agreement / 100,
        judged_by="accuracy",
        scores=scores,
    )


def _accuracies(
    both: Sequence[Sequence[tuple[str, ...]]], sample: Sample, task: Task
) -> dict[str, Pair]:
    if not sample.references:
        return {}
    judged = sample.references[: len(both[0])]
    expected = [labels_of(first, task) for first, *_ in judged]
    fp32, int8 = (label_accuracy(side, expected) for side in both)
    return {"accuracy": (fp32, int8)}


def _labels(
    predictor: Predictor, logits: Sequence[FloatArray]
) -> list[tuple[str, ...]]:
    return [predictor.best(np.atleast_2d(one))[0] for one in logits]


def _stream_logits(
    predictor: Predictor, examples: Sequence[Example]
) -> list[FloatArray]:
    """Position by position, one example at a time: (time, labels) each."""
    found = []
    for example in examples:
        stream = predictor.labeller.stream(1)
        [sequence] = example.values()  # a tagger has one input
        steps = [stream.push(sequence[i : i + 1])[0] for i in range(len(sequence))]
        found.append(np.stack(steps))
    return found


def _largest(whole: Sequence[FloatArray], streamed: Sequence[FloatArray]) -> float:
    """The largest difference of the examples that were streamed; 0 without any."""
    pairs = zip(whole, streamed, strict=False)
    return max((_apart(one, other) for one, other in pairs), default=0.0)


def _apart(one: FloatArray, other: FloatArray) -> float:
    return float(np.abs(one - other).max())


def _differ(one: FloatArray, other: FloatArray) -> bool:
    return not np.array_equal(one.argmax(axis=-1), other.argmax(axis=-1))


def _is_near_tie(expected: FloatArray, found: FloatArray, tolerance: float) -> bool:
    """Wherever labels differ, the reference sees the two no further apart."""
    rows: Any = np.atleast_2d(expected)
    ids, others = rows.argmax(axis=1), np.atleast_2d(found).argmax(axis=1)
    every = np.arange(len(rows))
    return bool((rows[every, ids] - rows[every, others] <= tolerance).all())

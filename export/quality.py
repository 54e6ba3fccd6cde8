"""What quantization costs: the int8 or int4 bundle against the fp32 one.

Judged by the metric of the task where the sample has references: BLEU (with chrF beside
it), or the percentage of exact sequences or of right labels. Without references the two
must agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seq2edge.export.near_ties import Tokens
from seq2edge.export.parity import QualityLimits, decode
from seq2edge.export.sample import Sample
from seq2edge.runtime.evaluate import Scorers, exact_share
from seq2edge.runtime.translator import Translator

Pair = tuple[float, float]  # fp32, quantized


@dataclass(frozen=True)
class QuantizedParity:
    """The quantized bundle against the fp32 one, with the model's own search."""

    examples: int
    exact: int
    agreement: float  # of tokens, by edit distance, or of labels
    judged_by: str
    scores: Mapping[str, Pair]  # metric to its percentages; none without references
    precision: str = "int8"

    def to_json(self) -> dict[str, object]:
        """For the certificate."""
        result: dict[str, object] = {
            "examples": self.examples,
            "exact_share": round(self.exact / self.examples, 4),
            "agreement": round(self.agreement, 4),
        }
        for name, pair in self.scores.items():
            fp32, quantized = (round(score, 2) for score in pair)
            loss = round(pair[0] - pair[1], 2)
            result[name] = {"fp32": fp32, self.precision: quantized, "loss": loss}
        return result

    def faults(self, limits: QualityLimits) -> Iterator[str]:
        """What is beyond the limits."""
        # A stream's accuracy is judged as that of the whole pass.
        judged = [name for name in self.scores if name.endswith(self.judged_by)]
        for metric in judged:
            before, after = self.scores[metric]
            most, name = _limit(metric, limits)
            if before - after > most:
                yield (
                    f"{self.precision} loses {before - after:.2f} {name} "
                    f"({before:.2f} to {after:.2f}), more than {most:g}"
                )
        if judged:
            return
        if self.agreement < limits.min_agreement:
            yield (
                f"{self.precision} agrees with fp32 in {self.agreement:.1%} of the "
                f"tokens, less than {limits.min_agreement:.1%}"
            )


def _limit(metric: str, limits: QualityLimits) -> tuple[float, str]:
    if metric == "bleu":
        return limits.max_bleu_loss, "BLEU"
    return limits.max_accuracy_loss, f"points of {metric.replace('_', ' ')}"


def compare_quantized(
    fp32: Translator,
    quantized: Translator,
    sample: Sample,
    judged_by: str,
    precision: str = "int8",
) -> QuantizedParity:
    """Decode the sample with both bundles and judge by its references, if any."""
    outputs = [decode(side, sample, side.defaults) for side in (fp32, quantized)]
    pairs = list(zip(*outputs, strict=True))
    edits = sum(edit_distance(one, other) for one, other in pairs)
    longest = sum(max(len(one), len(other), 1) for one, other in pairs)
    return QuantizedParity(
        examples=len(pairs),
        exact=sum(one == other for one, other in pairs),
        agreement=1 - edits / longest,
        judged_by=judged_by,
        scores=_scores(fp32, outputs, sample, judged_by),
        precision=precision,
    )


def _scores(
    translator: Translator,
    outputs: Sequence[Sequence[Tokens]],
    sample: Sample,
    judged_by: str,
) -> dict[str, Pair]:
    if not sample.references:
        return {}
    texts = [[translator.decode(tokens) for tokens in side] for side in outputs]
    if judged_by == "exact":
        before, after = (exact_share(side, sample.references) for side in texts)
        return {"exact": (before, after)}
    scorers = Scorers.load()
    both = [scorers.score(side, sample.references) for side in texts]
    (bleu, chrf), (other_bleu, other_chrf) = both
    return {
        "bleu": (bleu.score, other_bleu.score),
        "chrf": (chrf.score, other_chrf.score),
    }


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Levenshtein's: insertions, deletions and substitutions of tokens."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            cost = min(diagonal + (left != right), row[j] + 1, row[j - 1] + 1)
            diagonal, row[j] = row[j], cost
    return row[-1]

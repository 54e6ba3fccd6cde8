"""What int8 costs: the quantized bundle against the fp32 one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seq2edge.export.near_ties import Tokens
from seq2edge.export.parity import Limits, Note, decode
from seq2edge.export.sample import Sample
from seq2edge.runtime.evaluate import Scorers
from seq2edge.runtime.translator import Translator

Pair = tuple[float, float]  # fp32, int8


@dataclass(frozen=True)
class Int8Parity:
    """The int8 bundle against the fp32 one, with the model's own search."""

    sentences: int
    exact: int
    agreement: float  # of tokens, by edit distance
    bleu: Pair | None
    chrf: Pair | None

    def to_json(self) -> dict[str, object]:
        """For the certificate."""
        result: dict[str, object] = {
            "sentences": self.sentences,
            "exact_share": round(self.exact / self.sentences, 4),
            "token_agreement": round(self.agreement, 4),
        }
        for name, pair in (("bleu", self.bleu), ("chrf", self.chrf)):
            if pair is not None:
                fp32, int8 = (round(score, 2) for score in pair)
                loss = round(pair[0] - pair[1], 2)
                result[name] = {"fp32": fp32, "int8": int8, "loss": loss}
        return result

    def faults(self, limits: Limits) -> Iterator[str]:
        """What is beyond the limits."""
        if self.bleu is not None:
            loss = self.bleu[0] - self.bleu[1]
            if loss > limits.max_bleu_loss:
                yield (
                    f"int8 loses {loss:.2f} BLEU ({self.bleu[0]:.2f} to "
                    f"{self.bleu[1]:.2f}), more than {limits.max_bleu_loss:g}"
                )
        elif self.agreement < limits.min_agreement:
            yield (
                f"int8 agrees with fp32 in {self.agreement:.1%} of the tokens, less "
                f"than {limits.min_agreement:.1%}"
            )


def compare_int8(
    fp32: Translator, int8: Translator, sample: Sample, note: Note
) -> Int8Parity:
    """Decode the sample with both bundles and judge by its references, if any."""
    note(f"comparing int8 with fp32, beam {fp32.defaults.beam_size}")
    outputs = [decode(side, sample, side.defaults) for side in (fp32, int8)]
    pairs = list(zip(*outputs, strict=True))
    edits = sum(edit_distance(one, other) for one, other in pairs)
    longest = sum(max(len(one), len(other), 1) for one, other in pairs)
    bleu, chrf = _scores(fp32, outputs, sample)
    return Int8Parity(
        sentences=len(pairs),
        exact=sum(one == other for one, other in pairs),
        agreement=1 - edits / longest,
        bleu=bleu,
        chrf=chrf,
    )


def _scores(
    translator: Translator, outputs: Sequence[Sequence[Tokens]], sample: Sample
) -> tuple[Pair | None, Pair | None]:
    if not sample.references or translator.tokenizer is None:
        return None, None
    scorers, tokenizer = Scorers.load(), translator.tokenizer
    (bleu, chrf), (other_bleu, other_chrf) = (
        scorers.score([tokenizer.decode(tokens) for tokens in side], sample.references)
        for side in outputs
    )
    return (bleu.score, other_bleu.score), (chrf.score, other_chrf.score)


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Levenshtein's: insertions, deletions and substitutions of tokens."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            cost = min(diagonal + (left != right), row[j] + 1, row[j - 1] + 1)
            diagonal, row[j] = row[j], cost
    return row[-1]

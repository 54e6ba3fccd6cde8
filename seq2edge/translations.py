"""Translations and labels as lines of text or JSON, and what plain text can't show."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seq2edge.runtime.predictor import Prediction
    from seq2edge.runtime.translator import Translation

_NOTES = {
    "truncated": "had a part left out, as no piece of it fits the model",
    "hit_length_limit": "were cut at the length limit",
    "stopped": "were stopped by the deadline, the best so far",
}


def json_line(
    translation: "Translation", milliseconds: float, token_scores: bool = False
) -> str:
    """One object: text, tokens, score, flags, milliseconds and alternatives.

    With an alignment, if it was asked for: its pairs are [source, target]. So with
    the log-probability of each token.
    """
    record = asdict(translation)
    for each in (record, *record["alternatives"]):
        each["score"] = round(each["score"], 6)
        log_probs = each.pop("token_log_probs")
        if token_scores:
            each["token_log_probs"] = [round(number, 6) for number in log_probs]
    alignment = record.pop("alignment")
    if alignment is not None:
        rows = alignment["attention"]
        alignment["attention"] = [[round(x, 4) for x in row] for row in rows]
        record["alignment"] = alignment
    record["milliseconds"] = round(milliseconds, 3)
    return json.dumps(record, ensure_ascii=False)


def prediction_json(prediction: "Prediction", milliseconds: float) -> str:
    """One object: labels, log_probs, words, ranking, flags and milliseconds."""
    record = asdict(prediction)
    record["log_probs"] = [round(number, 6) for number in prediction.log_probs]
    record["ranking"] = [
        {"label": label, "log_prob": round(number, 6)}
        for label, number in prediction.ranking
    ]
    record["milliseconds"] = round(milliseconds, 3)
    return json.dumps(record, ensure_ascii=False)


def prediction_lines(prediction: "Prediction", n_best: int) -> Iterator[str]:
    """The labels; of several classes, rank TAB probability TAB label."""
    if n_best == 1 or not prediction.ranking:
        yield prediction.text
        return
    for rank, (label, log_prob) in enumerate(prediction.ranking[:n_best], start=1):
        yield f"{rank}\t{math.exp(log_prob):.4f}\t{label}"


def plain_lines(translation: "Translation", n_best: int) -> Iterator[str]:
    """The text; of several, rank TAB score TAB text.

    Behind the best one stands its alignment, TAB between them, if it was asked for.
    """
    alignment = translation.alignment
    best = translation.text + (f"\t{alignment.pharaoh}" if alignment else "")
    if n_best == 1:
        yield best
        return
    ranked = [(translation.score, best)]
    ranked += [(one.score, one.text) for one in translation.alternatives]
    for rank, (score, text) in enumerate(ranked, start=1):
        yield f"{rank}\t{score:.4f}\t{text}"


class Losses:
    """Counts what plain text can't show, so that nothing is lost silently."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, result: "Translation | Prediction") -> None:
        """Count a result's flags."""
        for flag in _NOTES:
            self._counts[flag] += bool(getattr(result.flags, flag, False))

    def notes(self) -> Iterator[str]:
        """A sentence for each kind of loss that happened."""
        for flag, count in self._counts.items():
            if count:
                yield f"{count} result(s) {_NOTES[flag]}; --json shows which"

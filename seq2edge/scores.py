"""Scores of given targets as lines of text or JSON, and what they come to in all."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict

from seq2edge.runtime.errors import InputError
from seq2edge.runtime.scoring import TargetScore, perplexity


def pair_of(line: str) -> tuple[str, str]:
    """Source and target of a line; all TABs but the last belong to the source."""
    source, tab, target = line.rpartition("\t")
    if not tab:
        raise InputError(
            f"SOURCE TAB TARGET is due, and there is no TAB in {line[:60]!r}"
        )
    return source, target


def score_line(result: TargetScore, score: float) -> str:
    """Score TAB tokens TAB perplexity."""
    return f"{score:.4f}\t{len(result.log_probs)}\t{result.perplexity:.4f}"


def score_json(result: TargetScore, score: float) -> str:
    """One object: score, log_prob, perplexity, tokens, log_probs and flags."""
    record = {
        "score": _rounded(score),
        "log_prob": _rounded(result.log_prob),
        "perplexity": _rounded(result.perplexity),
        "tokens": result.tokens,
        "log_probs": [_rounded(number) for number in result.log_probs],
        "flags": asdict(result.flags),
    }
    return json.dumps(record, ensure_ascii=False)


def _rounded(number: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    return round(number, 6) if math.isfinite(number) else None


class Corpus:
    """Adds up the scores of many pairs."""

    def __init__(self) -> None:
        self._pairs = 0
        self._tokens = 0
        self._log_prob = 0.0
        self._unscored = 0

    def add(self, result: TargetScore) -> None:
        """Count a pair."""
        self._pairs += 1
        if result.flags.scored:
            self._tokens += len(result.log_probs)
            self._log_prob += result.log_prob
        else:
            self._unscored += 1

    def notes(self) -> Iterator[str]:
        """The perplexity in all, and how many pairs have no score."""
        if self._tokens:
            total = perplexity(self._log_prob, self._tokens)
            scored, tokens = self._pairs - self._unscored, self._tokens
            yield f"{scored} pair(s), {tokens} tokens, perplexity {total:.4f} in all"
        if self._unscored:
            yield (
                f"{self._unscored} pair(s) have no score, being too long or without "
                "source; --json shows which"
            )

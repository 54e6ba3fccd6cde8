"""What a search finds, and the penalties that order it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from seq2edge.runtime.options import Normalization

Stop = Literal["", "callback", "deadline"]


@dataclass(frozen=True)
class Hypothesis:
    """A decoded sequence; not `finished` if it was cut, at its maximal length or by
    what `stopped` says.

    log_prob and token_log_probs are the model's own, whatever the options reweigh or
    force; the score is what they make of it, over the length penalty.
    """

    tokens: tuple[int, ...]  # without the end token
    score: float  # the order of n-best lists
    log_prob: float  # of all tokens and the end token
    finished: bool
    token_log_probs: tuple[float, ...] = ()  # of each token, and of the end token
    stopped: Stop = ""


def length_penalty(
    length: int, alpha: float, normalization: Normalization = "gnmt"
) -> float:
    """What a log-probability is divided by: 1 for one token, more for more.

    gnmt: Wu et al. 2016, arXiv:1609.08144, section 7; power: length ** alpha.
    """
    base = (5 + length) / 6 if normalization == "gnmt" else length
    return float(base**alpha)


def best_first(found: Sequence[Hypothesis], n_best: int) -> list[Hypothesis]:
    """The best so many, equals in the order they were found.

    Where a search was stopped, what has ended comes before the rest, whose scores are
    better only because it isn't at its end yet.
    """
    order = sorted(
        found, key=lambda one: (bool(one.stopped) and not one.finished, -one.score)
    )
    return order[:n_best]

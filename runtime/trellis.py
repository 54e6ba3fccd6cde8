"""Every token that a beam has kept and its predecessor: the paths of all hypotheses.

A node is a place in the step that it belongs to. What a step adds is kept as it comes,
in arrays; a path is only written out when somebody asks for it.
"""

from typing import NamedTuple

import numpy as np

from seq2edge.runtime.stepper import FloatArray, IntArray


class Path(NamedTuple):
    """Tokens of a hypothesis and the model's log-probability of each."""

    tokens: list[int]
    log_probs: list[float]


class Trellis:
    """Grows by a step at a time."""

    def __init__(self) -> None:
        self._steps: list[tuple[IntArray, IntArray, FloatArray]] = []

    def add(
        self, tokens: IntArray, log_probs: FloatArray, parents: IntArray
    ) -> IntArray:
        """The new step's nodes, in the shape of their tokens.

        parents: of each, its node in the step before; what they are in the first step
        doesn't matter.
        """
        self._steps.append((tokens, parents, log_probs))
        return np.arange(tokens.size).reshape(tokens.shape)

    def path(self, node: int) -> Path:
        """What leads to a node of the last step."""
        tokens, log_probs = [], []
        for step_tokens, parents, step_log_probs in reversed(self._steps):
            tokens.append(step_tokens.item(node))
            log_probs.append(step_log_probs.item(node))
            node = parents.item(node)
        return Path(tokens[::-1], log_probs[::-1])

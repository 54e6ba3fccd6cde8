"""Every token that a beam has kept and its predecessor: the paths of all hypotheses.

A node is a place in the step that it belongs to. What steps add is kept as it comes, in
arrays, until somebody asks for a path: numbers of lists are read faster than those of
arrays, and of all paths the steps are the same.
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
        # Of each step: tokens, the nodes before them, log-probabilities.
        self._steps: list[tuple[list[int], list[int], list[float]]] = []
        self._waiting: list[tuple[int, IntArray, IntArray, FloatArray]] = []

    def add(
        self, tokens: IntArray, log_probs: FloatArray, parents: IntArray
    ) -> IntArray:
        """The new step's nodes, in the shape of their tokens.

        parents: of each, its node in the step before; what they are in the first step
        doesn't matter.
        """
        self._waiting.append((1, tokens, parents, log_probs))
        return np.arange(tokens.size).reshape(tokens.shape)

    def add_steps(
        self, tokens: IntArray, log_probs: FloatArray, parents: IntArray
    ) -> IntArray:
        """Several steps, (steps, beam); returns the last one's nodes, (beam,)."""
        self._waiting.append((len(tokens), tokens, parents, log_probs))
        return np.arange(tokens.shape[1])

    def path(self, node: int) -> Path:
        """What leads to a node of the last step."""
        self._write_out()
        tokens, log_probs = [], []
        for step_tokens, parents, step_log_probs in reversed(self._steps):
            tokens.append(step_tokens[node])
            log_probs.append(step_log_probs[node])
            node = parents[node]
        return Path(tokens[::-1], log_probs[::-1])

    def _write_out(self) -> None:
        for steps, tokens, parents, log_probs in self._waiting:
            arrays = tokens, parents, log_probs
            lists = (array.reshape(steps, -1).tolist() for array in arrays)
            self._steps.extend(zip(*lists, strict=True))
        self._waiting.clear()

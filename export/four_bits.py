"""Products of float activations with weights of four bits: MatMulNBits.

At one row a product takes as long as its weights take to arrive, and these are half of
int8's. A block of weights of one output shares a scale and a zero point. Of scales that
clip a block's ends more or less, the one with the least squared error is taken; in the
decoder layers of a trained Marian student that error was, as a share of the weights'
own squares and by block size,

          least to greatest   clipped   symmetric, clipped
    16    0.0047              0.0041    0.0049
    32    0.0064              0.0058    0.0066
    64    0.0082              0.0075    0.0081

so blocks have zero points. What rounding a weight does to the outputs, the weights not
yet rounded make up for, as far as their inputs went together in what calibration saw:
Frantar et al. 2022, arXiv:2210.17323 (GPTQ). docs/int8.md has what that gains.

The operator scales each row of its input by itself (accuracy level 4).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2edge.export.coverage import FloatArray
from seq2edge.export.fragment import CONTRIB, Fragment

LEVELS = 15
SHARES = np.linspace(0.7, 1.05, 8, dtype=np.float32)  # of a block's ends
DAMPING = 0.01  # of the mean square of an input, added to each
AS_INT8 = 4  # the accuracy level: 8 bits for activations too


@dataclass(frozen=True)
class Blocks:
    """Integers 0 to 15 (outputs, blocks, size); scales and zero points of each block.

    A weight is (integer - zero point) * scale.
    """

    integers: NDArray[np.uint8]
    scales: FloatArray  # (outputs, blocks)
    zeros: NDArray[np.uint8]

    def floats(self) -> FloatArray:
        """The weights (outputs, blocks * size) that these stand for."""
        centred = self.integers.astype(np.float32) - self.zeros[..., None]
        floats: FloatArray = centred * self.scales[..., None]
        return floats.reshape(len(floats), -1)


def to_blocks(weight: FloatArray, size: int) -> Blocks:
    """The blocks nearest to a weight (outputs, inputs); the last one is padded."""
    outputs, inputs = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -inputs % size)))
    blocks = padded.reshape(outputs, -1, size)
    low = np.minimum(blocks.min(axis=2), 0)
    high = np.maximum(blocks.max(axis=2), 0)
    tried = [_between(blocks, low * a, high * b) for a in SHARES for b in SHARES]
    best, least = tried[0], _squared_error(blocks, tried[0])
    for other in tried[1:]:
        error = _squared_error(blocks, other)
        better = error < least
        least = np.where(better, error, least)
        best = Blocks(
            np.where(better[..., None], other.integers, best.integers),
            np.where(better, other.scales, best.scales),
            np.where(better, other.zeros, best.zeros),
        )
    return best


def to_compensated_blocks(weight: FloatArray, size: int, moments: FloatArray) -> Blocks:
    """Blocks whose product is near the weight's, for inputs with these moments.

    moments (inputs, inputs) is the sum of the outer products of the inputs.
    """
    inputs = weight.shape[1]
    spread = _spread(moments)
    left, made = weight.astype(np.float64), list[Blocks]()
    for first in range(0, inputs, size):
        last = min(first + size, inputs)
        block = to_blocks(left[:, first:last].astype(np.float32), size)
        errors = np.empty((len(left), last - first))
        for column in range(first, last):
            place = column - first
            error = _round_column(block, place, left[:, column])
            errors[:, place] = error / spread[column, column]
            behind = slice(column + 1, last)
            left[:, behind] -= np.outer(errors[:, place], spread[column, behind])
        left[:, last:] -= errors @ spread[first:last, last:]
        made.append(block)
    return Blocks(
        np.concatenate([block.integers for block in made], axis=1),
        np.concatenate([block.scales for block in made], axis=1),
        np.concatenate([block.zeros for block in made], axis=1),
    )


def _spread(moments: FloatArray) -> NDArray[np.float64]:
    """How an error of each input is best spread over those behind it: (inputs, inputs).

    The upper Cholesky factor of the inverse of the moments.
    """
    damped = moments.astype(np.float64)
    mean = np.trace(damped) / len(damped)
    damped[np.diag_indices_from(damped)] += DAMPING * mean if mean else 1.0
    lower: NDArray[np.float64] = np.linalg.cholesky(np.linalg.inv(damped))
    return lower.T


def _round_column(
    block: Blocks, place: int, exact: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Round one input's weights by the scales of a lone block; returns what is lost."""
    scales, zeros = block.scales[:, 0], block.zeros[:, 0].astype(np.float64)
    integers = np.clip(np.rint(exact / scales) + zeros, 0, LEVELS)
    block.integers[:, 0, place] = integers
    return np.asarray(exact - (integers - zeros) * scales)


def _between(blocks: FloatArray, low: FloatArray, high: FloatArray) -> Blocks:
    scales = (high - low) / np.float32(LEVELS)
    scales[scales == 0] = 1
    zeros = np.clip(np.rint(-low / scales), 0, LEVELS)
    integers = np.rint(blocks / scales[..., None]) + zeros[..., None]
    integers = np.clip(integers, 0, LEVELS).astype(np.uint8)
    return Blocks(integers, scales, zeros.astype(np.uint8))


def _squared_error(blocks: FloatArray, found: Blocks) -> FloatArray:
    error: FloatArray = blocks - found.floats().reshape(blocks.shape)
    return np.asarray((error**2).sum(axis=2))


def add_four_bit_product(
    out: Fragment, activation: str, blocks: Blocks, inputs: int, bias: str = ""
) -> str:
    """Write activation (..., inputs) times the blocks of a weight, and a bias.

    The fragment's prefix is what the product is called.
    """
    outputs, _, size = blocks.integers.shape
    arguments = [
        activation,
        out.constant("int4", _paired(blocks.integers)),
        out.constant("scales", blocks.scales),
        out.constant("zeros", _paired(blocks.zeros)),
    ]
    arguments += ["", bias] if bias else []
    return out.add_as(
        "MatMulNBits",
        arguments,
        out.prefix,
        domain=CONTRIB,
        K=inputs,
        N=outputs,
        bits=4,
        block_size=size,
        accuracy_level=AS_INT8,
    )


def _paired(integers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two of the last axis in a byte, the first in its low half."""
    odd = integers.shape[-1] % 2
    even = np.pad(integers, [(0, 0)] * (integers.ndim - 1) + [(0, odd)])
    return np.bitwise_or(even[..., 0::2], np.left_shift(even[..., 1::2], 4))

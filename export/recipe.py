"""What int8 means: widths, thresholds and the arithmetic of scales.

Weights are symmetric, one scale an output, and have 7 bits where a product reads
them: on x86 without VNNI, 8 can overflow the 16-bit sums of the kernels that multiply
unsigned by signed. Activations are uint8 with a scale fixed by calibration, which keeps
a row's result free of the rows beside it and saves the search for it at run time.

`export/targets.py` has a recipe for each kind of processor.

From how many hidden units on a recurrent operator of an encoder leaves fp32 is where
`benchmarks/recurrent_int8.py` sees the crossover; docs/int8.md has the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from seq2edge.export.coverage import FloatArray
from seq2edge.runtime.errors import ExportError

Range = tuple[float, float]
Ranges = Mapping[str, Range]  # activation to its least and greatest value
# Activation to the sum of its outer products with itself (features, features).
Moments = Mapping[str, FloatArray]
# Among what greedy and beam search choose: all tokens at every step; the same, with
# drafts of several steps; or the candidates of a shortlist.
Chooses = Literal["steps", "drafts", "shortlist"]
NEVER = 1 << 30  # more hidden units than anyone has


@dataclass(frozen=True)
class Recipe:
    """What int8 means; the manifest repeats it."""

    target: str | None = None  # the name, where it is one of `targets`
    product_bits: int = 7  # 8 only for processors with VNNI, or for Arm
    layer_bits: int = 8  # 4 in the precision int4: a decoder's layers, as MatMulNBits
    block_size: int = 32  # weights of four bits that share a scale
    smallest: int = 2048  # weights with fewer numbers stay float: they save nothing
    # An encoder's operator with as many hidden units leaves fp32; NEVER keeps it there.
    scan_from_hidden: int = 256
    joined_to_hidden: int = 384  # of a GRU, whose two directions then share a Scan
    anchored_from_hidden: int = 128  # an LSTM that is given no first state
    # A ReLU's state has no bound: a scale that holds the largest loses the small ones.
    relu_scan_from_hidden: int = NEVER
    # Drafts are faster than steps alone, and the decoder is there once more for them. A
    # shortlist is faster still, and part of what is lost.
    chooses: Chooses = "drafts"

    def __post_init__(self) -> None:
        """Refuse what no kernel computes."""
        if self.product_bits not in (7, 8):
            raise ExportError(f"product_bits is {self.product_bits}; use 7 or 8")
        if self.chooses not in get_args(Chooses):
            known = ", ".join(get_args(Chooses))
            raise ExportError(f"chooses is {self.chooses!r}, and none of {known}")
        if self.layer_bits not in (4, 8):
            raise ExportError(f"layer_bits is {self.layer_bits}; use 4 or 8")
        if self.block_size not in (16, 32, 64, 128, 256):
            raise ExportError(
                f"block_size is {self.block_size}; use 16, 32, 64, 128 or 256"
            )


@dataclass(frozen=True)
class Calibration:
    """By graph: encoder and decoder may use one name for two activations."""

    encoder: Ranges = field(default_factory=dict)
    decoder: Ranges = field(default_factory=dict)
    moments: Moments = field(default_factory=dict)  # of the decoder, for four bits


def to_int8(
    weight: FloatArray, axis: int, bits: int
) -> tuple[NDArray[np.int8], FloatArray]:
    """Symmetric integers and their scales, one for all that share the other axes."""
    levels = 2 ** (bits - 1) - 1
    scale = np.abs(weight).max(axis=axis, keepdims=True) / np.float32(levels)
    scale[scale == 0] = 1  # a row of zeros, as the padding's
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def with_zero(values: Range) -> Range:
    """A range that holds zero, which must be exact, and is not empty."""
    low, high = min(values[0], 0.0), max(values[1], 0.0)
    return (low, high) if low < high else (low, 1.0)


def to_uint8(values: Range) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Scale and zero point of activations within a range."""
    low, high = with_zero(values)
    scale = np.float32((high - low) / 255)
    zero = np.clip(round(-low / float(scale)), 0, 255)
    return np.array(scale), np.array(zero, np.uint8)

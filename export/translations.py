"""Operators that torch.onnx translates wrongly, in our own words.

repeat_interleave by a number that is not known in tracing: a decoder that wants its
memory once a row repeats it by the beam. onnxscript 0.7 expands to one axis too few.
"""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op


def repeat_interleave(
    self: Any, repeats: Any, dim: int | None = None, output_size: Any = None
) -> Any:
    """aten::repeat_interleave.self_int, the repeats a number or a tensor of one."""
    if dim is None:
        self, dim, rank = op.Reshape(self, _shape([-1])), 0, 1
    else:
        rank = len(self.shape)
    dim %= rank
    times = _shape([repeats] if isinstance(repeats, int) else repeats)
    sizes = [*[_shape([1])] * (dim + 1), times, *[_shape([1])] * (rank - dim - 1)]
    apart = op.Unsqueeze(self, _shape([dim + 1]))
    repeated = op.Expand(apart, op.Concat(*sizes, axis=0))
    before, after = op.Shape(self, start=0, end=dim), op.Shape(self, start=dim + 1)
    return op.Reshape(repeated, op.Concat(before, _shape([-1]), after, axis=0))


def _shape(sizes: Any) -> Any:
    """A tensor of one axis."""
    if isinstance(sizes, list):
        return op.Constant(value_ints=sizes)
    one_axis: Any = op.Constant(value_ints=[-1])
    return op.Reshape(sizes, one_axis)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.repeat_interleave.self_int: repeat_interleave
}

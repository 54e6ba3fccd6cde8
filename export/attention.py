"""The attention of `models.heads` as one operator of onnxruntime's.

Traced as it is written, attention is a dozen nodes: reshapes, transposes, two products
and a softmax. While `onnx_attention` is open it traces as MultiHeadAttention (domain
com.microsoft), which splits heads and keeps caches itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor

from seq2edge.models.heads import Heads

_plain_read = Heads.read
Shapes = Sequence[Sequence[int | torch.SymInt]]


@contextmanager
def onnx_attention() -> Iterator[None]:
    """Trace attention in ONNX form inside this block."""
    forms = {"within": _within, "extend": _extend, "read": _read}
    with ExitStack() as stack:
        for name, form in forms.items():
            stack.enter_context(mock.patch.object(Heads, name, form))
        yield


def _within(
    heads: Heads, queries: Tensor, keys: Tensor, values: Tensor, present: Tensor
) -> Tensor:
    """Stand in for Heads.within."""
    arguments = [queries, keys, values, None, present]
    return _operator(heads, arguments, [queries.shape])[0]


def _extend(
    heads: Heads,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Stand in for Heads.extend."""
    arguments = [query, key, value, None, None, None, keys, values]
    rows, count, past, features = keys.shape
    longer = (rows, count, past + 1, features)
    joined, keys, values = _operator(heads, arguments, [query.shape, longer, longer])
    return joined, keys, values


def _read(
    heads: Heads, queries: Tensor, keys: Tensor, values: Tensor, present: Tensor
) -> tuple[Tensor, Tensor]:
    """Stand in for Heads.read; a graph that shows no weights drops what makes them."""
    _, weights = _plain_read(heads, queries, keys, values, present)
    arguments = [queries, keys, values, None, present]
    return _operator(heads, arguments, [queries.shape])[0], weights


def _operator(
    heads: Heads, arguments: Sequence[Tensor | None], shapes: Shapes
) -> Sequence[Tensor]:
    outputs: Sequence[Tensor] = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::MultiHeadAttention",
        arguments,
        {"num_heads": heads.count},
        dtypes=[torch.float32] * len(shapes),
        shapes=shapes,
        version=1,
    )
    return outputs

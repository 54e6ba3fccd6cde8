"""The attention of `models.heads` as one operator of ONNX, Attention of opset 23.

Traced as it is written, attention is a dozen nodes: reshapes, transposes, two products
and a softmax. Microseconds of 8 heads of 32 (onnxruntime 1.32, AVX512, one thread), for
1 and 32 sentences of 20 tokens: reading themselves, this 18 and 565, MultiHeadAttention
(com.microsoft) 32 and 887, the dozen 30 and 800; one query reading them 4.7 and 108, 11
and 223; one more position of a cache of 10: 4.9 and 133, 7.2 and 139.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor

from seq2edge.models.heads import Heads

OPSET = 23  # Attention's first, which onnxruntime computes whole from 1.24 on

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
    heads: Heads, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor
) -> Tensor:
    """Stand in for Heads.within."""
    arguments = [queries, keys, values, mask]
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
    arguments = [query, key, value, None, keys, values]
    rows, count, past, features = keys.shape
    longer = (rows, count, past + 1, features)
    joined, keys, values = _operator(heads, arguments, [query.shape, longer, longer])
    return joined, keys, values


def _read(
    heads: Heads, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Stand in for Heads.read; a graph that shows no weights drops what makes them."""
    _, weights = _plain_read(heads, queries, keys, values, mask)
    arguments = [queries, keys, values, mask]
    return _operator(heads, arguments, [queries.shape])[0], weights


def _operator(
    heads: Heads, arguments: Sequence[Tensor | None], shapes: Shapes
) -> Sequence[Tensor]:
    outputs: Sequence[Tensor] = torch.onnx.ops.symbolic_multi_out(
        "Attention",
        arguments,
        {"q_num_heads": heads.count, "kv_num_heads": heads.count},
        dtypes=[torch.float32] * len(shapes),
        shapes=shapes,
        version=OPSET,
    )
    return outputs

"""Packed sequences while tracing: padded ones that know their lengths.

What torch.onnx can't trace is replaced for the time of a trace, in place, and put back
afterwards: pack_padded_sequence and pad_packed_sequence by their padded form, the
functions that take Python lists of sentences by a refusal that says what to use.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar, NoReturn
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor  # what traced code reads
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn.utils import rnn

from seq2edge.runtime.errors import ExportError

LOCK = threading.RLock()  # what is replaced is the process's, not a thread's


class Unreadable:
    """Stands for numbers that tracing doesn't know, nor how many they are."""

    reason: ClassVar[str]  # the refusal

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse whatever is asked."""
        raise ExportError(self.reason)

    def __len__(self) -> int:
        raise ExportError(self.reason)

    def __getitem__(self, place: object) -> NoReturn:
        raise ExportError(self.reason)


@dataclass(frozen=True, eq=False)
class Padded(Unreadable):
    """What stands for a PackedSequence's batch_sizes while tracing.

    The PackedSequence shows `flat` as its data, so that code that works on the data of
    every token (an embedding, a dropout) finds the axes that it knows.
    """

    padded: Tensor  # (time, batch, ...)
    flat: Tensor  # (time * batch, ...)
    lengths: Tensor  # (batch,) int32
    zero: bool  # past the lengths, as a recurrent layer leaves it
    device: ClassVar[torch.device] = torch.device("cpu")  # torch asks for this one
    reason = (
        "a packed sequence's batch_sizes can't be exported; take the batch from "
        "source.shape[0], or unpack with pad_packed_sequence first"
    )


@dataclass(frozen=True, eq=False)
class Lengths(Unreadable):
    """What stands for lengths.tolist() while tracing: only packing can read it."""

    tensor: Tensor  # (batch,)
    reason = (
        "lengths as a Python list or a numpy array serve pack_padded_sequence only; "
        "for all else use the tensor, and source.shape[1] for the longest"
    )


@contextmanager
def traced_packing() -> Iterator[None]:
    """Trace packed sequences as padded ones inside this block."""
    with LOCK, ExitStack() as stack:
        for original, by in STAND_INS.items():
            stack.enter_context(_replaced(original, by))
        for name in ("tolist", "numpy"):
            stack.enter_context(_listed(name))
        yield


@contextmanager
def any_order() -> Iterator[None]:
    """Let pack_padded_sequence take unsorted rows even with enforce_sorted=True.

    That is its default, right where a training loop sorts its batches; but a bundle
    takes rows in any order, and so must the module that it is compared with.
    """
    with LOCK, _replaced(rnn.pack_padded_sequence, _pack_any_order):
        yield


@contextmanager
def _replaced(function: Any, by: Any) -> Iterator[None]:
    """Let a function run the code of another.

    Its name can't be patched: modules import it by name, each into its own globals.
    """
    original = function.__code__
    function.__code__ = by.__code__
    try:
        yield
    finally:
        function.__code__ = original


def _listed(name: str) -> AbstractContextManager[Any]:
    """Let a method that makes Python numbers of a tensor make Lengths of lengths."""
    original = getattr(FakeTensor, name)

    def method(tensor: Tensor, *args: Any, **named: Any) -> Any:
        if tensor.dim() == 1 and isinstance(tensor.shape[0], torch.SymInt):
            return Lengths(tensor)
        return original(tensor, *args, **named)

    return mock.patch.object(FakeTensor, name, method)


# These run inside torch.nn.utils.rnn: they see no names of this file, and must have the
# parameters of what they replace.
def _pack(input, lengths, batch_first=False, enforce_sorted=True):  # type: ignore[no-untyped-def]  # noqa: A002
    from seq2edge.export import packing

    return packing.pack(input, lengths, batch_first)


def _pack_any_order(input, lengths, batch_first=False, enforce_sorted=True):  # type: ignore[no-untyped-def]  # noqa: A002
    from seq2edge.export import packing

    return packing.TORCH_PACK(input, lengths, batch_first, enforce_sorted=False)


def _pad(sequence, batch_first=False, padding_value=0.0, total_length=None):  # type: ignore[no-untyped-def]
    from seq2edge.export import packing

    return packing.pad(sequence, batch_first, padding_value, total_length)


def _pack_list(sequences, enforce_sorted=True):  # type: ignore[no-untyped-def]
    from seq2edge.export import packing

    packing.refuse_list("pack_sequence")


def _unpack_list(packed_sequences):  # type: ignore[no-untyped-def]
    from seq2edge.export import packing

    packing.refuse_list("unpack_sequence")


STAND_INS: dict[Any, Any] = {
    rnn.pack_padded_sequence: _pack,
    rnn.pad_packed_sequence: _pad,
    rnn.pack_sequence: _pack_list,
    rnn.unpack_sequence: _unpack_list,
}
TORCH_PACK = FunctionType(rnn.pack_padded_sequence.__code__, vars(rnn))


def refuse_list(name: str) -> NoReturn:
    """Refuse a function that has a Python list of sentences."""
    raise ExportError(
        f"{name} has a Python list of sentences, whose number tracing would freeze; "
        "use pack_padded_sequence and pad_packed_sequence on the padded batch"
    )


def pack(padded: Tensor, lengths: Any, batch_first: bool) -> rnn.PackedSequence:
    """Stand in for pack_padded_sequence; rows may come in any order."""
    if isinstance(lengths, Lengths):
        lengths = lengths.tensor
    if not isinstance(lengths, Tensor):
        raise ExportError(
            "pack_padded_sequence got lengths that are no tensor, which freezes them; "
            "give it the lengths tensor itself"
        )
    data = padded.transpose(0, 1) if batch_first else padded
    return packed(data, lengths.to(torch.int32))


def packed(padded: Tensor, lengths: Tensor, zero: bool = False) -> rnn.PackedSequence:
    """Padded (time, batch, ...) and its lengths as what strangers' code expects."""
    flat = padded.flatten(0, 1)
    sizes: Any = Padded(padded, flat, lengths, zero)
    return rnn.PackedSequence(flat, sizes)


def unpacked(sequence: rnn.PackedSequence) -> Padded:
    """What a sequence holds, also one whose data somebody has replaced."""
    known = sequence.batch_sizes
    if not isinstance(known, Padded):
        raise ExportError(
            "a PackedSequence that was not made by pack_padded_sequence "
            "can't be exported; make it with that"
        )
    if sequence.data is known.flat:
        return known
    sizes = (*known.padded.shape[:2], *sequence.data.shape[1:])
    return Padded(
        sequence.data.reshape(sizes), sequence.data, known.lengths, zero=False
    )


def pad(
    sequence: rnn.PackedSequence,
    batch_first: bool,
    padding_value: float,
    total_length: Any,
) -> tuple[Tensor, Tensor]:
    """Stand in for pad_packed_sequence; the time axis stays as long as it was."""
    known = unpacked(sequence)
    data, lengths = known.padded, known.lengths
    if padding_value or not known.zero:
        steps = torch.arange(data.shape[0], device=data.device)
        outside = (steps[:, None] >= lengths).reshape(
            *data.shape[:2], *[1] * (data.dim() - 2)
        )
        data = data.masked_fill(outside, padding_value)
    if total_length is not None:
        data = _lengthened(data, total_length, padding_value)
    return (data.transpose(0, 1) if batch_first else data), lengths.to(torch.int64)


def _lengthened(data: Tensor, total_length: Any, padding_value: float) -> Tensor:
    missing = total_length - data.shape[0]
    if statically_known_true(missing == 0):
        return data
    # Not functional.pad: below zero it would cut a long source, where this fails.
    return torch.cat([data, data.new_full((missing, *data.shape[1:]), padding_value)])

"""The one call of torch.onnx.export, and what must be true of the graph it makes."""

import gc
import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import nn
from torch.export import Dim

from seq2edge.export import attention
from seq2edge.export.examine import Traced
from seq2edge.export.graphs import Contract, EncoderGraph, StepGraph
from seq2edge.export.recurrent import onnx_recurrence
from seq2edge.export.translations import TRANSLATIONS
from seq2edge.models.heads import Heads
from seq2edge.runtime.contract import TOKEN, input_arrays, stream_input
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.manifest import PAST, Axis

OPSET = 21  # the lowest that torch exports what we trace to
Shape = tuple[Axis, ...]


@dataclass(frozen=True)
class Port:
    """An input or output of a graph, with its declared axes."""

    name: str
    shape: Shape


def trace_encoder(
    module: nn.Module, contract: Contract, example: Traced
) -> onnx.ModelProto:
    """`encode` as a graph: inputs to memory.* or output.*, and state.*, of any size."""
    arrays = [array for spec in contract.inputs for array in input_arrays(spec)]
    inputs = [Port(array.name, array.shape) for array in arrays]
    outputs = [
        *(
            Port(f"{contract.role}.{spec.name}", spec.shape)
            for spec in contract.results
        ),
        *(
            Port(f"state.{spec.name}", ("batch", *spec.shape[1:]))
            for spec in contract.state
        ),
    ]
    tensors = {port.name: example.inputs[port.name] for port in inputs}
    shapes = ({port.name: _dynamic(port.shape) for port in inputs},)
    graph = EncoderGraph(module, contract)
    return _trace(graph, (tensors,), shapes, inputs, outputs)


def trace_step(
    module: nn.Module, contract: Contract, example: Traced
) -> onnx.ModelProto:
    """`step` as a graph: token, memory.*, state.* to logits and next.*, of any rows.

    With an `attention` behind the logits where the module shows it.
    """
    writes = contract.task == "generation"
    read = TOKEN if writes else stream_input(contract.inputs[0])
    token = Port(read.name, read.shape)
    memory = [Port(f"memory.{spec.name}", spec.shape) for spec in contract.memory]
    state = [Port(f"state.{spec.name}", spec.shape) for spec in contract.state]
    width = "vocabulary" if writes else "labels"
    shown = [contract.attention] if contract.attention else []
    outputs = [
        Port("logits", ("rows", width)),
        *(Port(spec.name, spec.shape) for spec in shown),
        *(
            Port(f"next.{spec.name}", tuple(_after_step(axis) for axis in spec.shape))
            for spec in contract.state
        ),
    ]
    arguments = (
        example.token,
        {spec.name: example.memory[spec.name] for spec in contract.memory},
        {spec.name: example.state[spec.name] for spec in contract.state},
    )
    shapes = (
        _dynamic(token.shape),
        {spec.name: _dynamic(spec.shape) for spec in contract.memory},
        {spec.name: _dynamic(spec.shape) for spec in contract.state},
    )
    graph = StepGraph(module, contract)
    return _trace(graph, arguments, shapes, [token, *memory, *state], outputs)


def _after_step(axis: Axis) -> Axis:
    return "past_and_present" if axis == PAST else axis


def _dynamic(shape: Shape) -> dict[int, Any]:
    # Named Dims would refuse the lower bounds that torch infers (beam >= 2), which mean
    # nothing in ONNX; DYNAMIC refuses only an axis that was frozen.
    return {place: Dim.DYNAMIC for place, axis in enumerate(shape) if type(axis) is str}


def _trace(
    graph: nn.Module,
    arguments: tuple[Any, ...],
    shapes: tuple[Any, ...],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
) -> onnx.ModelProto:
    model = _export(graph, arguments, shapes, inputs, outputs)
    _check_axes(model.graph, inputs)
    _declare(model.graph, inputs, outputs)
    _strip(model)
    _unfold_transposes(model.graph, graph)
    return model


def _export(
    graph: nn.Module,
    arguments: tuple[Any, ...],
    shapes: tuple[Any, ...],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
) -> onnx.ModelProto:
    what = "encode" if isinstance(graph, EncoderGraph) else "step"
    try:
        with (
            onnx_recurrence(graph),
            attention.onnx_attention(),
            _quiet(),
            _uncollected(),
            torch.no_grad(),
        ):
            program = torch.export.export(
                graph.eval(),
                arguments,
                dynamic_shapes=shapes,
                strict=False,
                # rows is a multiple of batch, which no Dim can say: a guard on it
                # would fail the export, an assertion is dropped on the way to ONNX.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            exported = torch.onnx.export(
                program,
                arguments,
                input_names=[port.name for port in inputs],
                output_names=[port.name for port in outputs],
                opset_version=_opset(graph),
                custom_translation_table=TRANSLATIONS,
                dynamo=True,
                verbose=False,
            )
    except ExportError:
        raise
    except Exception as error:  # a stranger's code may raise anything while traced
        raise ExportError(f"{what} can't be exported: {_sentence(error)}") from error
    if exported is None:
        raise ExportError(f"{what} can't be exported: torch.onnx gave no program")
    return exported.model_proto


def _opset(graph: nn.Module) -> int:
    """The lowest that has what the graph needs."""
    attends = any(isinstance(part, Heads) for part in graph.modules())
    return attention.OPSET if attends else OPSET


@contextmanager
def _quiet() -> Iterator[None]:
    """No chatter of the exporter: it warns of its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cycles, of which tracing makes millions: it takes 0.8 of the time.

    What they hold has no data.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _sentence(error: Exception) -> str:
    """What an exception of torch says that a user can act on, in one line."""
    text = str(error)
    if frozen := re.search(
        r"static shape of (\d+) for dimension inputs\[(.*)\]\.shape\[(\d+)", text
    ):
        size, name, axis = frozen.groups()
        name = name.replace("'", "").replace("][", ".").removeprefix("inputs.")
        return (
            f"its code fixes axis {axis} of {name} at {size}; take sizes from "
            "shape[...], not from len() or Python numbers"
        )
    if "data-dependent" in text:
        return (
            "its Python code branches or counts by the values of tensors; "
            f"use torch.where or masks ({_first_line(text)})"
        )
    return f"{type(error).__name__}: {_first_line(text)}"


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _check_axes(graph: onnx.GraphProto, ports: Sequence[Port]) -> None:
    """Every named axis must have stayed free, and no two have become one."""
    names: dict[str, str] = {}  # the exporter's symbol to our axis
    declared = {value.name: value for value in graph.input}
    for port in ports:
        if port.name not in declared:
            continue
        dims = declared[port.name].type.tensor_type.shape.dim
        for place, (axis, dim) in enumerate(zip(port.shape, dims, strict=True)):
            where = f"axis {place} of {port.name}"
            if type(axis) is int:
                continue
            if not dim.dim_param:
                raise ExportError(
                    f"{where} ({axis}) was frozen at {dim.dim_value} in tracing; "
                    "take sizes from the tensors' shapes, not from Python numbers"
                )
            if names.setdefault(dim.dim_param, str(axis)) != axis:
                raise ExportError(
                    f"{where} ({axis}) was taken for {names[dim.dim_param]} in "
                    "tracing; the two must be free of each other"
                )


def _declare(
    graph: onnx.GraphProto, inputs: Sequence[Port], outputs: Sequence[Port]
) -> None:
    """Give the axes our names, and leave out inputs that no node reads."""
    shapes = {port.name: port.shape for port in (*inputs, *outputs)}
    read = {name for node in graph.node for name in node.input}
    used = [value for value in graph.input if value.name in read]
    del graph.input[:]
    graph.input.extend(used)
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        for axis, dim in zip(shapes[value.name], dims, strict=True):
            if type(axis) is str and not dim.dim_value:
                dim.dim_param = axis
    # They name the exporter's symbols; onnxruntime infers its own.
    del graph.value_info[:]


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of its own work: it holds paths of this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for tensor in model.graph.initializer:
        _rename(model.graph, tensor, _weight_name(model.graph, tensor.name))


def _weight_name(graph: onnx.GraphProto, name: str) -> str:
    """The module's own name of a weight, unless a port bears it, as "attention"."""
    own = name.removeprefix("module.")
    ports = (*graph.input, *graph.output)
    return name if any(port.name == own for port in ports) else own


def _rename(graph: onnx.GraphProto, tensor: onnx.TensorProto, name: str) -> None:
    for node in graph.node:
        for place, read in enumerate(node.input):
            if read == tensor.name:
                node.input[place] = name
    tensor.name = name


def _unfold_transposes(graph: onnx.GraphProto, module: nn.Module) -> None:
    """Undo what the exporter did to weights that a product reads transposed.

    It stores a transposed copy under a made-up name: then a tied table is there twice.
    onnxruntime folds the Transpose when it loads the graph.
    """
    weights = {
        hashlib.sha256(weight.detach().T.contiguous().numpy().tobytes()).digest(): (
            _weight_name(graph, name),
            weight.detach(),
        )
        for name, weight in module.named_parameters()
        if weight.dim() == 2
    }
    transposes = []
    for tensor in [t for t in graph.initializer if len(t.dims) == 2]:
        content = onnx.numpy_helper.to_array(tensor)
        found = weights.get(hashlib.sha256(content.tobytes()).digest())
        if found is None or tuple(tensor.dims) != tuple(found[1].T.shape):
            continue
        name, weight = found
        if (1 in tensor.dims) or tensor.name == name:
            continue
        folded, tensor.name = tensor.name, name
        if any(other.name == name for other in graph.initializer if other != tensor):
            graph.initializer.remove(tensor)
        else:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight.numpy(), name))
        transposes.append(onnx.helper.make_node("Transpose", [name], [folded]))
    nodes = [*transposes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)

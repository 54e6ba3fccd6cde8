"""Which int8 form of a product makes a decoder step fastest on this processor?

    python benchmarks/int8_forms.py [--rounds 40]

Traces the step of a decoder with random weights (embedding 256, vocabulary 5,000 tied,
two GRU layers of 320, attention), rewrites its products in each form, and times whole
greedy steps at 1, 5 and 32 rows, alternating the forms. The error is the largest of any
unit of the last layer's next state. `export/quantize.py` says what came out.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node
from traced import traced

from seq2edge.export.heads import greedy_head
from seq2edge.models.build import build_model
from seq2edge.models.recurrent_config import RecurrentConfig

Array = NDArray[Any]
CONTRIB = "com.microsoft"
SIZES = ((1, 1), (1, 5), (32, 1))  # batch, beam
SOURCE = 20
WIDE = 512


@dataclass
class Product:
    """One Gemm of the decoder, to be rewritten; `add` names a new constant."""

    node: NodeProto
    weight: Array  # (outputs, inputs)
    constants: dict[str, Array] = field(default_factory=dict)

    def add(self, name: str, value: Array) -> str:
        """Name a constant after the product."""
        full = f"{self.node.output[0]}.{name}"
        self.constants[full] = value
        return full

    def integers(self, bits: int, unsigned: bool = False) -> tuple[str, str, str]:
        """Weight (inputs, outputs), its scales and its zero point."""
        levels = 2 ** (bits - 1) - 1
        scale = np.maximum(np.abs(self.weight).max(1), 1e-6) / np.float32(levels)
        whole = np.rint(self.weight / scale[:, None]).T
        kind = np.uint8 if unsigned else np.int8
        zero = np.array(128 if unsigned else 0, kind)
        whole = (whole + (128 if unsigned else 0)).astype(kind)
        return (
            self.add("w", np.ascontiguousarray(whole)),
            self.add("scales", scale.astype(np.float32)),
            self.add("zero", zero),
        )

    @property
    def bias(self) -> list[str]:
        """The bias, if there is one."""
        return [*self.node.input[2:]]


def fixed(product: Product, bits: int = 7, unsigned: bool = False) -> list[NodeProto]:
    """Constant activation scales, as calibration finds them."""
    weight, scales, zero = product.integers(bits, unsigned)
    activation, out = product.node.input[0], product.node.output[0]
    scale = product.add("a_scale", np.array(2 / 127, np.float32))
    middle = product.add("a_zero", np.array(128, np.uint8))
    inputs = [f"{out}.q", weight, scale, scales, middle, zero, *product.bias]
    return [
        make_node("QuantizeLinear", [activation, scale, middle], [f"{out}.q"]),
        make_node("MatMulIntegerToFloat", inputs, [out], domain=CONTRIB),
    ]


def fixed_apart(product: Product) -> list[NodeProto]:
    """Constant activation scales; integers made float by nodes of their own."""
    weight, scales, zero = product.integers(7)
    activation, out = product.node.input[0], product.node.output[0]
    step = np.float32(2 / 127)
    scale = product.add("a_scale", np.array(step))
    middle = product.add("a_zero", np.array(128, np.uint8))
    both = product.add("both_scales", product.constants[scales] * step)
    scaled = f"{out}.scaled" if product.bias else out
    nodes = [
        make_node("QuantizeLinear", [activation, scale, middle], [f"{out}.q"]),
        make_node("MatMulInteger", [f"{out}.q", weight, middle, zero], [f"{out}.i"]),
        make_node("Cast", [f"{out}.i"], [f"{out}.f"], to=TensorProto.FLOAT),
        make_node("Mul", [f"{out}.f", both], [scaled]),
    ]
    if product.bias:
        nodes.append(make_node("Add", [scaled, *product.bias], [out]))
    return nodes


def fixed_wide(product: Product) -> list[NodeProto]:
    """The one for wide products, the other for narrow ones."""
    wide = len(product.weight) >= WIDE
    return fixed_apart(product) if wide else fixed(product)


def by_batch(product: Product) -> list[NodeProto]:
    """One activation scale for the batch, found in every step."""
    weight, scales, zero = product.integers(7)
    inputs = [product.node.input[0], weight, scales, zero, *product.bias]
    out = product.node.output[0]
    return [make_node("DynamicQuantizeMatMul", inputs, [out], domain=CONTRIB)]


def by_row(product: Product) -> list[NodeProto]:
    """One activation scale for each row, found in every step."""
    weight, scales, zero = product.integers(7)
    activation, out = product.node.input[0], product.node.output[0]
    axis = product.add("axis", np.array([-1]))
    levels = product.add("levels", np.array(1 / 127, np.float32))
    one = product.add("one", np.array(1, np.float32))
    middle = product.add("a_zero", np.array(128, np.uint8))
    inputs = [f"{out}.q", weight, one, scales, middle, zero]
    nodes = [
        make_node("Abs", [activation], [f"{out}.abs"]),
        make_node("ReduceMax", [f"{out}.abs", axis], [f"{out}.max"]),
        make_node("Mul", [f"{out}.max", levels], [f"{out}.row"]),
        make_node("Div", [activation, f"{out}.row"], [f"{out}.unit"]),
        make_node("QuantizeLinear", [f"{out}.unit", one, middle], [f"{out}.q"]),
        make_node("MatMulIntegerToFloat", inputs, [f"{out}.whole"], domain=CONTRIB),
    ]
    scaled = f"{out}.scaled" if product.bias else out
    nodes.append(make_node("Mul", [f"{out}.whole", f"{out}.row"], [scaled]))
    if product.bias:
        nodes.append(make_node("Add", [scaled, *product.bias], [out]))
    return nodes


def by_block(product: Product, block: int) -> list[NodeProto]:
    """MatMulNBits: 8 bits, one weight scale a block, activations scaled per row."""
    outputs, inputs = product.weight.shape
    blocks = -(-inputs // block)
    padded = np.zeros((outputs, blocks * block), np.float32)
    padded[:, :inputs] = product.weight
    padded = padded.reshape(outputs, blocks, block)
    scale = np.maximum(np.abs(padded).max(2) / np.float32(127), np.float32(1e-9))
    whole = (np.rint(padded / scale[..., None]) + 128).astype(np.uint8)
    names = [product.add("w", whole), product.add("scales", scale.astype(np.float32))]
    bias = ["", "", *product.bias] if product.bias else []
    return [
        make_node(
            "MatMulNBits",
            [product.node.input[0], *names, *bias],
            [product.node.output[0]],
            domain=CONTRIB,
            K=inputs,
            N=outputs,
            bits=8,
            block_size=block,
            accuracy_level=4,
        )
    ]


FORMS: Mapping[str, Callable[[Product], list[NodeProto]]] = {
    "fp32": lambda product: [product.node],
    "fixed scales": fixed,
    "fixed scales, MatMulInteger": fixed_apart,
    "fixed scales, MatMulInteger from 512 outputs": fixed_wide,
    "fixed scales, 8-bit unsigned weights": lambda product: fixed(product, 8, True),
    "scales by batch": by_batch,
    "scales by row": by_row,
    "MatMulNBits, block 32": lambda product: by_block(product, 32),
    "MatMulNBits, block 128": lambda product: by_block(product, 128),
}


def decoder() -> ModelProto:
    """The greedy head of a decoder with random weights."""
    module = build_model(RecurrentConfig(5000, 5000), seed=0).eval()
    sources = [[5, 6, 7, 2], [8, 9, 2]]
    _, step, _ = traced(module, sources, 1)
    return greedy_head(step)


def rewritten(model: ModelProto, form: str) -> onnxruntime.InferenceSession:
    """A session whose products have this form."""
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    graph = copy.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes, constants = [], {}
    for node in graph.node:
        if node.op_type == "Gemm":
            weight = numpy_helper.to_array(weights[node.input[1]])
            product = Product(node, weight)
            nodes.extend(FORMS[form](product))
            constants.update(product.constants)
        else:
            nodes.append(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in weights.items() if name in read]
    kept += [numpy_helper.from_array(a, n) for n, a in constants.items() if n in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(copy.SerializeToString(), options)


def feed(batch: int, beam: int) -> dict[str, Array]:
    """Random tokens, memory and state."""
    random = np.random.default_rng(0)
    rows = batch * beam

    def draw(*shape: int) -> Array:
        return random.uniform(-1, 1, shape).astype(np.float32)

    return {
        "token": random.integers(4, 5000, rows),
        "memory.values": draw(batch, SOURCE, 512),
        "memory.keys": draw(batch, SOURCE, 320),
        "memory.mask": np.zeros((batch, SOURCE), np.float32),
        "state.hidden_0": draw(rows, 320),
        "state.hidden_1": draw(rows, 320),
    }


@click.command()
@click.option("--rounds", default=40, show_default=True)
def main(rounds: int) -> None:
    """Print microseconds a step, times faster than fp32, and the error."""
    torch.set_num_threads(1)
    model = decoder()
    sessions = {form: rewritten(model, form) for form in FORMS}
    outputs = ["best_log_prob", "best_token", "next.hidden_0", "next.hidden_1"]
    for batch, beam in SIZES:
        given = feed(batch, beam)
        times: dict[str, list[float]] = {form: [] for form in FORMS}
        repeat = 10 if batch == 1 else 3
        for _ in range(rounds):
            for form, session in sessions.items():
                session.run(outputs, given)
                begin = time.thread_time()
                for _ in range(repeat):
                    session.run(outputs, given)
                spent = time.thread_time() - begin
                times[form].append(1e6 * spent / repeat)
        expected = sessions["fp32"].run(outputs, given)[3]
        reference = statistics.median(times["fp32"])
        print(f"{batch * beam} rows")
        for form, session in sessions.items():
            middle = statistics.median(times[form])
            error = np.abs(session.run(outputs, given)[3] - expected).max()
            print(
                f"  {form:<46}{middle:7.0f} us {reference / middle:6.2f} times"
                f"   error {error:.4f}"
            )


if __name__ == "__main__":
    main()

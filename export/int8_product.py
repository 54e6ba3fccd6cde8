"""One product of uint8 activations with an int8 matrix, in the nodes that run fastest.

MatMulIntegerToFloat scales its sums in one pass and is best for many rows. For few rows
and many outputs it is not: MatMulInteger, with a Cast and a Mul after it, takes 0.67 to
0.77 of its time at one row from 768 outputs on, 0.9 at five, and as long at eight; a
whole greedy step of the decoder in `benchmarks/int8_forms.py` then takes 0.90 at one
row, 0.97 at five and 1.06 at 32 (AVX512-VNNI). So the wide products of a step have that
form.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from seq2edge.export.coverage import FloatArray
from seq2edge.export.fragment import CONTRIB, Fragment

WIDE = 512  # outputs


@dataclass(frozen=True)
class Activation:
    """A quantized activation: uint8, the names of its constants and its scale."""

    name: str
    scale_name: str
    zero: str
    scale: FloatArray


def add_int8_product(
    out: Fragment,
    inputs: Activation,
    matrix: str,
    scales: FloatArray,
    output: str,
    bias: str = "",
    few_rows: bool = False,
) -> str:
    """Write inputs times an int8 matrix (inputs, outputs), and a bias, as floats."""
    if few_rows and scales.size >= WIDE:
        both = out.constant(f"{output}.scales", np.asarray(scales * inputs.scale))
        whole = f"{output}.whole"
        out.add_as(
            "MatMulInteger", [inputs.name, matrix, inputs.zero], f"{whole}.int32"
        )
        out.add_as("Cast", [f"{whole}.int32"], whole, to=TensorProto.FLOAT)
        scaled = f"{output}.scaled" if bias else output
        out.add_as("Mul", [whole, both], scaled)
        return out.add_as("Add", [scaled, bias], output) if bias else scaled
    column_scales = out.constant(f"{output}.scales", scales)
    arguments = [inputs.name, matrix, inputs.scale_name, column_scales, inputs.zero]
    arguments += ["", bias] if bias else []
    return out.add_as("MatMulIntegerToFloat", arguments, output, domain=CONTRIB)

"""Recipes by the processor that a bundle is for: what `--target` names.

A product multiplies uint8 activations by int8 weights on all of them. What differs is
how many bits the weights may have.

portable      7 bits: right and fast everywhere. The default.
x86-avx2      the same. onnxruntime's kernels for AVX2, and for AVX-512 without VNNI,
              add pairs of products in 16 bits, which 8 bits overflow.
x86-vnni      8 bits: VNNI adds in 32.
arm-dotprod   8 bits: so do UDOT and the kernels for Arm without it.
arm-i8mm      8 bits: so does UMMLA.
small-memory  7 bits; no heads that draft, which hold the decoder once more, and the
              recurrent layers of an encoder in int8 from 64 units on, where the float
              operator is faster and takes four times the memory.
native        the one of these for the processor at hand.

Measured, by `benchmarks/saturation.py` on a processor with VNNI, as it is and with VNNI
hidden from onnxruntime: that 8 bits overflow there and 7 don't, and that neither does
with VNNI. Only reasoned, by reading onnxruntime 1.32's sources, for no Arm processor is
at hand: on Arm, its MatMulInteger of uint8 by int8 takes the weights as unsigned, for
UDOT and UMMLA, or without these the activations as signed, two products of at most
128 * 127 in 16 bits, which hold them. For int8 by int8 there are SDOT and SMMLA, which
do the same work: nothing would be gained by another form.
"""

from collections.abc import Mapping

from seq2edge.export.recipe import Recipe
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.processor import DOT_PRODUCT, MATRIX_PRODUCT, VNNI, Processor

PORTABLE, NATIVE = "portable", "native"

TARGETS: Mapping[str, Recipe] = {
    recipe.target: recipe
    for recipe in (
        Recipe(PORTABLE),
        Recipe("x86-avx2"),
        Recipe("x86-vnni", product_bits=8),
        Recipe("arm-dotprod", product_bits=8),
        Recipe("arm-i8mm", product_bits=8),
        Recipe(
            "small-memory",
            scan_from_hidden=64,
            anchored_from_hidden=64,
            chooses="steps",
        ),
    )
    if recipe.target is not None
}


def recipe_of(target: str) -> Recipe:
    """The recipe of this name; ExportError lists them where it isn't one."""
    name = native_target(Processor.here()) if target == NATIVE else target
    if name not in TARGETS:
        known = ", ".join([*TARGETS, NATIVE])
        raise ExportError(f"target {target!r} is none of {known}")
    return TARGETS[name]


def native_target(processor: Processor) -> str:
    """The target for a processor; portable where nothing is known of it."""
    if processor.family == "x86" and processor.has(*VNNI):
        return "x86-vnni"
    if processor.family == "x86" and processor.has("avx2"):
        return "x86-avx2"
    if processor.family == "arm" and processor.has(MATRIX_PRODUCT):
        return "arm-i8mm"
    if processor.family == "arm" and processor.has(DOT_PRODUCT):
        return "arm-dotprod"
    return PORTABLE

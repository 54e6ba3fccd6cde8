"""Whether bf16 autocast pays in training on this processor: measured, not guessed.

With AMX or AVX512-BF16 a bf16 product is several times faster than in fp32; without
them it was measured 25 to 60 times slower (AMD EPYC with AVX2, torch 2.13).
"""

import time

import torch

WORTH_IT = 1.2  # casts cost something too


def bf16_speedup(rows: int = 256, size: int = 512, repeats: int = 5) -> float:
    """Time of an fp32 matrix product over that of a bf16 one; medians, alternating."""
    pairs = [
        (torch.randn(rows, size, dtype=dtype), torch.randn(size, size, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats + 1):
        for times, (left, right) in zip(seconds, pairs, strict=True):
            begin = time.perf_counter()
            torch.mm(left, right)
            times.append(time.perf_counter() - begin)
    fp32, bf16 = (sorted(times[1:])[repeats // 2] for times in seconds)
    return fp32 / bf16

"""Teach a small model enough that its outputs vary and mean something.

Random weights say the same for ever, or chaos; what int8 loses shows only on a model
that has learned. Each structure of docs/structures.md gets a toy task that it can
learn, some hundred updates long: to write its input (a text backwards), to tag, to
classify.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from seq2edge.models.network import Batch
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.recurrent_network import RecurrentNetwork
from seq2edge.runtime.inputs import Example, collate
from seq2edge.runtime.manifest import SEQUENCES, InputSpec
from seq2edge.runtime.vocabulary import Vocabulary

FIRST = 4  # the first id that is no special token
SYMBOLS = 16
FEATURES = 5
PATTERNS = np.random.default_rng(99).standard_normal((SYMBOLS, FEATURES))

Random = np.random.Generator


def draw_example(
    inputs: Sequence[InputSpec], random: Random, longest: int
) -> tuple[Example, list[int]]:
    """Random inputs, and the symbols that they stand for, one after the other."""
    example: dict[str, Any] = {}
    symbols: list[int] = []
    for spec in inputs:
        if spec.kind in SEQUENCES:
            drawn = random.integers(SYMBOLS, size=random.integers(1, longest + 1))
            noise = 0.1 * random.standard_normal((len(drawn), FEATURES))
            frames = (PATTERNS[drawn] + noise).astype(np.float32)
            example[spec.name] = frames if spec.kind == "frames" else drawn + FIRST
            symbols += drawn[::-1].tolist()
        elif spec.kind == "class":
            kind = int(random.integers(len(spec.labels)))
            example[spec.name] = np.int64(kind)
            symbols = symbols[::-1] if kind % 2 else symbols
            symbols += [(kind + place) % SYMBOLS for place in range(kind + 1)]
        else:
            vector = random.standard_normal(FEATURES, dtype=np.float32)
            example[spec.name] = vector
            symbols += [2 * place + int(x > 0) for place, x in enumerate(vector)]
    return {name: np.asarray(value) for name, value in example.items()}, symbols


def expected_output(config: RecurrentConfig, symbols: list[int]) -> list[int]:
    """What a model is taught to say of an example."""
    if config.task == "generation":
        return [symbol + FIRST for symbol in symbols]
    forwards = symbols[::-1]
    before = [0, *forwards[:-1]]
    if config.task == "tagging":
        pairs = zip(forwards, before, strict=True)
        return [(one + other) % config.labels for one, other in pairs]
    half = SYMBOLS // 2  # of the first symbol there is, and of the last
    return [2 * (symbols[-1] >= half) + (symbols[0] >= half)]


def teach(
    module: RecurrentNetwork,
    inputs: Sequence[InputSpec],
    vocabulary: Vocabulary,
    seed: int,
    steps: int,
    longest: int = 8,
) -> float:
    """Some updates of Adam on examples of up to so many symbols; the last loss."""
    random = np.random.default_rng(seed)
    rate = 5e-3
    if module.config.cell == "elman_relu":
        rate, steps = 2e-3, 2 * steps  # a ReLU that is driven too hard dies
    adam = torch.optim.Adam(module.parameters(), rate, betas=(0.9, 0.98))
    module.train()
    loss = torch.zeros(())
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20, 2 * (1 - step / steps))
        batch = make_batch(module.config, inputs, vocabulary, random, 48, longest)
        adam.zero_grad()
        loss = module.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        adam.step()
    module.eval()
    return float(loss.detach())


def make_batch(
    config: RecurrentConfig,
    inputs: Sequence[InputSpec],
    vocabulary: Vocabulary,
    random: Random,
    size: int,
    longest: int,
) -> Batch:
    """Fresh examples with what is expected of them."""
    drawn = [draw_example(inputs, random, longest) for _ in range(size)]
    tensors = _tensors(collate([example for example, _ in drawn], inputs))
    outputs = [expected_output(config, symbols) for _, symbols in drawn]
    if config.task == "classification":
        return Batch(tensors, torch.tensor([one for [one] in outputs]), size)
    if config.task == "tagging":
        return Batch(tensors, _padded(outputs, -100), sum(map(len, outputs)))
    start, end, pad = vocabulary.start, vocabulary.end, vocabulary.pad
    return Batch(
        inputs=tensors,
        expected=_padded([[*one, end] for one in outputs], pad),
        tokens=sum(len(one) + 1 for one in outputs),
        target=_padded([[start, *one] for one in outputs], pad),
    )


def _padded(sequences: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    longest = max(map(len, sequences))
    rows = [[*one, *[value] * (longest - len(one))] for one in sequences]
    return torch.tensor(rows, dtype=torch.int64)


def _tensors(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}

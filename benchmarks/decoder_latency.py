"""What a decoder costs: GRU, LSTM, SSRU and transformer with as many parameters.

    python benchmarks/decoder_latency.py --output docs

writes decoder-latency.json, .md and .svg there: milliseconds of decoding greedily to
10, 40 and 120 tokens, one sentence and 32 at once, in fp32, in int8, and in int8 with
a shortlist, where one sentence goes many steps a run. One thread, random weights (only
sizes count), a source of 20 tokens, a vocabulary of 8,000. Timed are the calls that the
search makes for its tokens; the encoder, the tokenizer and the search's own bookkeeping
are not. Contenders alternate; medians of all rounds.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import onnx
from decoder_latency_page import page, plot

from seq2edge.export import (
    ExportOptions,
    Limits,
    ModelSpec,
    QualityLimits,
    Sample,
    export_model,
)
from seq2edge.models.build import build_model, count_parameters
from seq2edge.models.config import ModelConfig
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.transformer_config import TransformerConfig
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.engine import Engine
from seq2edge.runtime.inputs import SOURCE, collate
from seq2edge.runtime.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=8000, pad=0, unknown=1, start=2, end=3)
SIZE, SOURCE_TOKENS = 256, 20
BATCHES, LENGTHS = (1, 32), (10, 40, 120)
SHORTLIST = "int8, shortlist"
PRECISIONS = ("fp32", "int8", SHORTLIST)
ANY_QUALITY = QualityLimits(min_exact=0.0, min_agreement=0.0)


@dataclass(frozen=True)
class Contender:
    """A decoder of about the wanted size."""

    name: str
    config: ModelConfig
    parameters: int  # of the decoder, without embedding and output layer


@dataclass(frozen=True)
class Timing:
    """Milliseconds of decoding a batch to its length."""

    decoder: str
    precision: str
    batch: int
    length: int
    milliseconds: float  # median
    lower: float  # quartiles
    upper: float


def contenders() -> Iterator[Contender]:
    """Two layers each, as wide as makes their decoders equally large."""
    transformer = TransformerConfig(
        VOCABULARY.size, VOCABULARY.size, SIZE, encoder_layers=1, max_positions=128
    )
    wanted = _decoder_parameters(transformer)
    yield Contender("transformer", transformer, wanted)
    ssru = replace(transformer, decoder="ssru")
    yield _fitted("SSRU", ssru, "decoder_feed_forward", wanted)
    for cell in ("gru", "lstm"):
        recurrent = RecurrentConfig(
            VOCABULARY.size,
            VOCABULARY.size,
            cell=cell,
            embedding_size=SIZE,
            encoder_hidden=SIZE // 2,
            encoder_layers=1,
        )
        yield _fitted(cell.upper(), recurrent, "decoder_hidden", wanted)


def _fitted(name: str, config: Any, key: str, wanted: int) -> Contender:
    """The configuration whose width, in steps of 8, comes nearest to the size."""
    sized = [
        (_decoder_parameters(each), each)
        for each in (replace(config, **{key: width}) for width in range(256, 2048, 8))
    ]
    parameters, best = min(sized, key=lambda pair: abs(pair[0] - wanted))
    return Contender(name, best, parameters)


def _decoder_parameters(config: ModelConfig) -> int:
    import torch

    with torch.device("meta"):
        model: Any = build_model(config)
    return count_parameters(model.decoder)


def export(contender: Contender, precision: str, folder: Path) -> Path:
    """The contender's bundle; it never ends a translation."""
    import torch

    module: Any = build_model(contender.config, seed=1).eval()
    with torch.no_grad():
        module.output.projection.bias[VOCABULARY.end] = -1e4
    random = np.random.default_rng(0)
    examples = [
        {"source": random.integers(4, VOCABULARY.size, SOURCE_TOKENS + n)}
        for n in range(8)
    ]
    spec = ModelSpec(contender.name, VOCABULARY, Limits(64, max(LENGTHS)))
    path = folder / f"{contender.name}-{precision}"
    listed = precision == SHORTLIST
    kind = "int8" if listed else precision
    options = ExportOptions(kind, limits=ANY_QUALITY, shortlist=listed)
    export_model(module, Sample.of(examples), path, spec, options)
    return path


def weight_bytes(bundle: Path) -> int:
    """What a step reads: the weights of the greedy head."""
    model = onnx.load(bundle / "decoder.greedy.onnx")
    return sum(len(one.raw_data) for one in model.graph.initializer)


def state_bytes(bundle: Path, length: int) -> int:
    """What is kept of a hypothesis of so many tokens."""
    total = 0
    for spec in Bundle.load(bundle).manifest.state:
        sizes = {"rows": 1, "past": length}
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape]
        total += int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
    return total


class Decoder:
    """A batch under way, greedily."""

    def __init__(self, engine: Engine, batch: int, several: bool) -> None:
        """several: whether to go as many steps a run as can be."""
        random = np.random.default_rng(batch)
        sources = random.integers(4, VOCABULARY.size, (batch, SOURCE_TOKENS))
        inputs = collate([{"source": row} for row in sources], [SOURCE])
        self._decoding: Any = engine.start(inputs)
        self._tokens = np.full(batch, VOCABULARY.start, dtype=np.int64)
        self._several = several

    def seconds(self, steps: int) -> float:
        """Of so many more steps."""
        total = 0.0
        while steps:
            began = time.perf_counter()
            if self._several:
                _, found = self._decoding.ahead(self._tokens, steps)
            else:
                _, found = self._decoding.best(self._tokens, None, 1)
            total += time.perf_counter() - began
            self._tokens, steps = found[:, -1], steps - found.shape[1]
        return total


def measure(paths: dict[tuple[str, str], Path], rounds: int) -> list[Timing]:
    """Every bundle, batch and length; a round asks each once."""
    engines = {key: Engine.load(path) for key, path in paths.items()}
    seconds: dict[tuple[str, str, int, int], list[float]] = {}
    for number in range(rounds + 1):
        for batch in BATCHES:
            for (decoder, precision), engine in engines.items():
                going = Decoder(engine, batch, batch == 1 and precision == SHORTLIST)
                total, done = 0.0, 0
                for length in LENGTHS:
                    total += going.seconds(length - done)
                    done = length
                    if number:  # the first round warms up
                        key = (decoder, precision, batch, length)
                        seconds.setdefault(key, []).append(1000 * total)
    return [Timing(*key, *_spread(values)) for key, values in seconds.items()]


def _spread(values: list[float]) -> tuple[float, float, float]:
    lower, _, upper = quantiles(values, n=4)
    return round(median(values), 3), round(lower, 3), round(upper, 3)


def main() -> None:
    """Export, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    everyone = list(contenders())
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            (one.name, precision): export(one, precision, Path(folder))
            for one in everyone
            for precision in PRECISIONS
        }
        decoders = [
            {
                "decoder": one.name,
                "parameters": one.parameters,
                "weight_bytes": {
                    precision: weight_bytes(paths[one.name, precision])
                    for precision in PRECISIONS[:2]
                },
                "state_bytes": {
                    length: state_bytes(paths[one.name, "fp32"], length)
                    for length in LENGTHS
                },
            }
            for one in everyone
        ]
        timings = measure(paths, arguments.rounds)
    record = {"decoders": decoders, "timings": [asdict(one) for one in timings]}
    text = json.dumps(record, indent=1) + "\n"
    (arguments.output / "decoder-latency.json").write_text(text, encoding="utf-8")
    text = page(record, arguments.rounds)
    (arguments.output / "decoder-latency.md").write_text(text, encoding="utf-8")
    plot(record, arguments.output / "decoder-latency.svg")


if __name__ == "__main__":
    main()

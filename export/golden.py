"""The examples by which a device checks that a bundle says there what it says here.

Another processor rounds otherwise, so an example must not hang on a near tie: those are
preferred that come out the same with every log-probability a little off. Frames are
written into the bundle beside their examples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from seq2edge.export.near_ties import is_firm
from seq2edge.export.parity import searches
from seq2edge.export.sample import Sample
from seq2edge.runtime.golden import Golden, GoldenExample
from seq2edge.runtime.inputs import Array, Example, example_length
from seq2edge.runtime.manifest import InputSpec, Manifest
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.runner import Runner, load_runner, replay

EXAMPLES = 5
CANDIDATES = 10  # tried for each
# How far a log-probability may be off elsewhere. In int8 and int4 one rounding may turn
# into a whole step of a quantized activation.
NOISE = {"fp32": 1e-3, "int8": 0.05, "int4": 0.05}
FOLDER = "golden"  # of the files that examples name


def golden_examples(folder: Path, sample: Sample, manifest: Manifest) -> Golden:
    """Examples of all lengths, as the bundle in this folder runs each alone."""
    runner = replace(load_runner(folder, check_hashes=False), folder=folder)
    noise, examples = NOISE[manifest.precision], sample.examples

    def size(place: int) -> int:
        return example_length(examples[place], manifest.inputs)

    places = sorted(range(len(examples)), key=size)
    step = max(1, len(places) // EXAMPLES)
    groups = [places[first : first + step] for first in range(0, len(places), step)]
    chosen = [_firmest(runner, examples, group, noise) for group in groups[:EXAMPLES]]
    golden = []
    for number, place in enumerate(dict.fromkeys(chosen)):
        text = sample.texts[place] if sample.texts else None
        line = _line(folder, number, examples[place], manifest.inputs, text)
        as_ids = text is None and manifest.tokenizer is not None
        golden += [
            replay(runner, GoldenExample(line, as_ids, beam_size, (), "", 0.0))
            for beam_size in _beams(runner)
        ]
    return Golden(tuple(golden), score_tolerance=noise)


def _beams(runner: Runner) -> list[int]:
    if isinstance(runner, Predictor):
        return [1]
    return list(dict.fromkeys([1, runner.defaults.beam_size]))


def _firmest(
    runner: Runner, examples: Sequence[Example], places: Sequence[int], noise: float
) -> int:
    """The first of these examples that noise doesn't change, or just the first."""
    for place in places[:CANDIDATES]:
        if _is_firm(runner, examples[place], noise):
            return place
    return places[0]


def _is_firm(runner: Runner, example: Example, noise: float) -> bool:
    if isinstance(runner, Predictor):
        logits = np.atleast_2d(runner.logits([example])[0])
        if logits.shape[1] < 2:
            return True
        best = np.sort(logits, axis=1)[:, -2:]
        return bool((best[:, 1] - best[:, 0] > 2 * noise).all())
    options = searches(runner.defaults)
    return all(is_firm(runner, example, option, noise) for option in options)


def _line(
    folder: Path,
    number: int,
    example: Example,
    inputs: Sequence[InputSpec],
    text: str | None,
) -> str:
    """The example as a line that the bundle reads."""
    given = (
        [text] if text is not None and len(inputs) == 1 else (text or "").split("\t")
    )
    fields = []
    for place, spec in enumerate(inputs):
        array = example[spec.name]
        if spec.kind == "frames":
            name = f"{FOLDER}/{number}.{spec.name}.npy"
            (folder / FOLDER).mkdir(exist_ok=True)
            np.save(folder / name, array, allow_pickle=False)
            fields.append(name)
        elif text is not None:
            fields.append(given[place])
        else:
            fields.append(" ".join(_words(spec, array)))
    return "\t".join(fields)


def _words(spec: InputSpec, array: Array) -> Iterator[str]:
    """Numbers, or a class's name, as `records` reads them."""
    if spec.kind == "class":
        yield spec.labels[int(array)]
    elif spec.kind == "vector":
        yield from (repr(float(number)) for number in array)
    else:
        yield from map(str, array.tolist())

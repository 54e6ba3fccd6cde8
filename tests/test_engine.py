"""The engine says what the numpy model says, and refuses what doesn't fit."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_bundle import (
    VOCABULARY,
    WIDTH,
    ToyModel,
    toy_inputs,
    toy_manifest,
    write_toy_bundle,
)

from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.engine import Engine, EngineOptions
from seq2edge.runtime.errors import BundleError, ConfigError, InputError
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.search import search
from seq2edge.runtime.stepper import Decoding, IntArray

SOURCES = [[5, 6, 7, 3], [8, 3], [9, 10, 11, 12, 13, 14, 3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "toy"
    write_toy_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.load(folder)


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A bundle that the test may spoil."""
    write_toy_bundle(tmp_path / "toy")
    return tmp_path / "toy"


def ids(*tokens: int) -> IntArray:
    return np.array(tokens, np.int64)


def both(engine: Engine) -> tuple[Decoding, Decoding]:
    """The same batch begun by the engine and by the numpy model."""
    inputs = toy_inputs(SOURCES)
    return engine.start(inputs), ToyModel().start(inputs)


def assert_same(left: tuple[Any, Any], right: tuple[Any, Any]) -> None:
    assert [array.dtype for array in left] == [np.float32, np.int64]
    np.testing.assert_allclose(left[0], right[0], atol=1e-5)
    np.testing.assert_array_equal(left[1], right[1])


def test_greedy_steps_equal_the_numpy_model(engine: Engine) -> None:
    ours, judge = both(engine)
    for tokens in (ids(2, 2, 2), ids(5, 6, 7), ids(8, 9, 10)):
        assert_same(ours.best(tokens, None, 1), judge.best(tokens, None, 1))


def test_beams_that_grow_and_shrink_equal_the_numpy_model(engine: Engine) -> None:
    ours, judge = both(engine)
    steps = [
        (ids(2, 2, 2), None),
        (ids(4, 5, 6, 7, 8, 9), ids(0, 0, 1, 1, 2, 2)),
        (ids(9, 8, 7, 6, 5, 4), ids(1, 0, 2, 2, 5, 4)),
        (ids(5, 6, 7), ids(0, 3, 5)),
    ]
    for tokens, parents in steps:
        assert_same(ours.best(tokens, parents, 4), judge.best(tokens, parents, 4))


def test_heads_may_change_from_step_to_step(engine: Engine) -> None:
    ours, judge = both(engine)
    start = ids(2, 2, 2)
    assert_same(ours.best(start, None, 1), judge.best(start, None, 1))
    np.testing.assert_allclose(
        ours.scores(ids(4, 5, 6), None), judge.scores(ids(4, 5, 6), None), atol=1e-5
    )
    swapped = ids(2, 1, 0)
    assert_same(ours.best(start, swapped, 1), judge.best(start, swapped, 1))
    np.testing.assert_allclose(
        ours.scores(start, swapped), judge.scores(start, swapped), atol=1e-5
    )
    assert_same(ours.best(start, None, 1), judge.best(start, None, 1))


@pytest.mark.parametrize("kept", [[0, 1, 2], [0, 2], [1]])
def test_sentences_that_leave_take_their_rows_along(
    engine: Engine, kept: list[int]
) -> None:
    ours, judge = both(engine)
    for decoding in (ours, judge):
        decoding.best(ids(2, 2, 2), None, 2)
        decoding.best(ids(4, 5, 6, 7, 8, 9), ids(0, 0, 1, 1, 2, 2), 2)
        decoding.keep(ids(*kept))
    tokens = np.arange(2 * len(kept)) + 10
    parents = np.arange(2 * len(kept))[::-1] // 2 * 2
    parents.sort()
    assert_same(ours.best(tokens, parents, 3), judge.best(tokens, parents, 3))
    assert_same(ours.best(tokens, None, 3), judge.best(tokens, None, 3))


sentences = st.lists(st.integers(4, VOCABULARY.size - 1), max_size=9).map(
    lambda tokens: [*tokens, VOCABULARY.end]
)


@settings(deadline=None, max_examples=30)
@given(st.lists(sentences, min_size=1, max_size=6), st.integers(1, 5))
def test_a_search_equals_that_of_the_numpy_model(
    engine: Engine, sources: list[list[int]], beam_size: int
) -> None:
    options = SearchOptions(beam_size=beam_size, n_best=beam_size)
    limits = [20] * len(sources)
    inputs = toy_inputs(sources)
    ours = search(engine, inputs, VOCABULARY, options, limits)
    judge = search(ToyModel(), inputs, VOCABULARY, options, limits)
    for left, right in zip(ours, judge, strict=True):
        assert [each.tokens for each in left] == [each.tokens for each in right]
        assert [each.score for each in left] == pytest.approx(
            [each.score for each in right], rel=1e-4
        )


@settings(deadline=None, max_examples=20)
@given(st.lists(sentences, min_size=2, max_size=6))
def test_a_sentence_alone_equals_itself_in_a_batch(
    engine: Engine, sources: list[list[int]]
) -> None:
    options = SearchOptions(beam_size=3)

    def tokens(batch: list[list[int]]) -> list[tuple[int, ...]]:
        found = search(engine, toy_inputs(batch), VOCABULARY, options, [9] * len(batch))
        return [best.tokens for [best] in found]

    assert tokens(sources) == [tokens([source])[0] for source in sources]


def test_heads_are_loaded_when_first_used(own_folder: Path) -> None:
    engine = Engine.load(own_folder)
    for head in ("greedy", "beam", "scores"):
        (own_folder / f"decoder.{head}.onnx").rename(own_folder / f"{head}.away")
    decoding = engine.start(toy_inputs(SOURCES))
    (own_folder / "beam.away").rename(own_folder / "decoder.beam.onnx")
    decoding.best(ids(2, 2, 2), None, 3)
    with pytest.raises(BundleError, match=r"decoder\.greedy\.onnx can't be loaded"):
        decoding.best(ids(2, 2, 2), None, 1)


def test_threads_share_an_engine(folder: Path) -> None:
    engine = Engine.load(folder)
    options = SearchOptions(beam_size=3)
    barrier = threading.Barrier(8)

    def decode(shift: int) -> list[tuple[int, ...]]:
        barrier.wait()
        inputs = toy_inputs([[4 + shift, 5, 6, 3]] * 2)
        found = [
            search(engine, inputs, VOCABULARY, options, [15, 15]) for _ in range(10)
        ]
        return [best.tokens for each in found for [best] in each]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(decode, range(8)))
    for shift, tokens in enumerate(results):
        inputs = toy_inputs([[4 + shift, 5, 6, 3]])
        [[alone]] = search(engine, inputs, VOCABULARY, options, [15])
        assert set(tokens) == {alone.tokens}


def test_a_missing_head_is_named(own_folder: Path) -> None:
    manifest = toy_manifest(own_folder).to_json()
    del manifest["heads"]["scores"]
    (own_folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    decoding = Engine.load(own_folder).start(toy_inputs(SOURCES))
    with pytest.raises(BundleError, match="has no scores head, only greedy, beam"):
        decoding.scores(ids(2, 2, 2), None)


def source(*shape: int) -> np.ndarray[Any, np.dtype[Any]]:
    return np.full(shape, 5, np.int64)


LENGTHS = np.array([3, 2], np.int32)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"source": source(2, 3)}, "the inputs are source, where this bundle takes"),
        (
            {"source": source(2, 3).astype(np.int32), "source_lengths": LENGTHS},
            r"source must be int64 of shape \(batch=2, source=3\), and not empty; "
            r"it is int32 of shape \(2, 3\)",
        ),
        (
            {"source": source(2, 3), "source_lengths": LENGTHS.astype(np.int64)},
            r"source_lengths must be int32 of shape \(batch=2\)",
        ),
        ({"source": source(6), "source_lengths": LENGTHS}, "source must be int64"),
        (
            {"source": source(4, 3), "source_lengths": LENGTHS},
            r"source_lengths must be int32 of shape \(batch=4\)",
        ),
        ({"source": source(2, 0), "source_lengths": LENGTHS}, "not empty"),
        ({"source": source(0, 3), "source_lengths": LENGTHS[:0]}, "not empty"),
        (
            {"source": source(2, 2), "source_lengths": LENGTHS},
            "source_lengths must be from 1 to 2; they are from 2 to 3",
        ),
        (
            {"source": source(2, 3), "source_lengths": LENGTHS * 0},
            "they are from 0 to 0",
        ),
        (
            {"source": -source(2, 3), "source_lengths": LENGTHS},
            "source has the negative token -5",
        ),
        (
            {"source": source(2, 3) + 1000, "source_lengths": LENGTHS},
            r"encoder\.onnx can't run on this input: .*1005",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    engine: Engine, inputs: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        engine.start(inputs)


def spoil(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """Change a graph, and keep the manifest's sizes and hashes true to it."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    toy_manifest(path.parent).write(path.parent)


def rename_output(name: str, to: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = [to if each == name else each for each in node.output]
            node.input[:] = [to if each == name else each for each in node.input]
        for port in model.graph.output:
            port.name = to if port.name == name else port.name

    return change


def add_output(model: onnx.ModelProto) -> None:
    cast = onnx.helper.make_node("Cast", ["memory.values"], ["memory.wide"], to=11)
    model.graph.node.append(cast)
    port = onnx.helper.make_tensor_value_info(
        "memory.wide", 11, ["batch", "source", 16]
    )
    model.graph.output.append(port)


def test_a_graph_that_contradicts_the_manifest_is_refused(own_folder: Path) -> None:
    encoder = own_folder / "encoder.onnx"
    spoil(encoder, rename_output("memory.values", "memory.walues"))
    with pytest.raises(BundleError) as caught:
        Engine.load(own_folder)
    assert "output memory.walues is not in the contract" in str(caught.value)
    assert "output memory.values is missing" in str(caught.value)
    spoil(encoder, rename_output("memory.walues", "memory.values"))
    spoil(encoder, add_output)
    with pytest.raises(
        BundleError, match=r"output memory\.wide is not in the contract"
    ):
        Engine.load(own_folder)


def test_a_type_or_shape_that_contradicts_the_manifest_is_named(
    own_folder: Path,
) -> None:
    manifest = toy_manifest(own_folder).to_json()
    manifest["memory"][0]["shape"][2] = WIDTH + 1
    manifest["memory"][1]["dtype"] = "float16"
    manifest["state"][0]["shape"].append(1)
    (own_folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        Engine.load(own_folder)
    message = str(caught.value)
    assert "memory.values has shape ['batch', 'source', 16], not" in message
    assert "memory.mask is tensor(float), not tensor(float16)" in message
    assert "state.sum has shape ['batch', 16], not ['rows', 16, 1]" in message


def test_a_damaged_graph_is_refused_with_its_hash_unchecked(own_folder: Path) -> None:
    encoder = own_folder / "encoder.onnx"
    content = encoder.read_bytes()
    encoder.write_bytes(b"\xff" * len(content))
    with pytest.raises(BundleError, match=r"encoder\.onnx can't be loaded"):
        Engine.load(Bundle.load(own_folder, check_hashes=False))


def test_weights_outside_of_the_folder_are_not_read(own_folder: Path) -> None:
    (own_folder.parent / "weights.bin").write_bytes(bytes(10752))

    def point_outside(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../weights.bin"

    spoil(own_folder / "encoder.onnx", point_outside)
    with pytest.raises(BundleError, match=r"encoder\.onnx can't be loaded"):
        Engine.load(own_folder)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_must_be_positive(threads: int) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        EngineOptions(threads=threads)


def test_an_absent_provider_is_told_with_those_that_are_there() -> None:
    with pytest.raises(ConfigError, match=r"NoneSuch.*CPUExecutionProvider"):
        EngineOptions(providers=("NoneSuchExecutionProvider",))
    with pytest.raises(ConfigError, match="none"):
        EngineOptions(providers=())


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(threads=2, spinning=True, arena=True),
        EngineOptions(session_entries=(("session.disable_prepacking", "1"),)),
    ],
)
def test_options_do_not_change_the_tokens(
    folder: Path, engine: Engine, options: EngineOptions
) -> None:
    other = Engine.load(folder, options)
    found = [
        search(each, toy_inputs(SOURCES), VOCABULARY, SearchOptions(), [20] * 3)
        for each in (engine, other)
    ]
    left, right = [[best.tokens for [best] in each] for each in found]
    assert left == right


def test_a_profile_of_each_used_graph_is_written(folder: Path, tmp_path: Path) -> None:
    engine = Engine.load(folder, EngineOptions(profile=tmp_path))
    engine.start(toy_inputs(SOURCES)).best(ids(2, 2, 2), None, 1)
    profiles = engine.end_profiling()
    assert profiles.keys() == {"encoder", "greedy"}
    assert {path.parent for path in profiles.values()} == {tmp_path}
    events = json.loads(profiles["greedy"].read_text(encoding="utf-8"))
    assert any(event.get("args", {}).get("op_name") == "ArgMax" for event in events)


def test_nothing_is_said_on_the_streams_even_when_a_run_fails(folder: Path) -> None:
    script = (
        "import sys; import numpy as np\n"
        "from seq2edge.runtime.engine import Engine\n"
        "from seq2edge.runtime.errors import InputError\n"
        "engine = Engine.load(sys.argv[1])\n"
        "source = np.full((1, 3), 1000)\n"
        "try: engine.start({'source': source, 'source_lengths': np.int32([3])})\n"
        "except InputError: sys.exit(7)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, os.fspath(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (7, "", "")


def test_the_attention_equals_that_of_the_numpy_model(engine: Engine) -> None:
    ours, judge = both(engine)
    steps = [
        (ids(2, 2, 2), None),
        (ids(4, 5, 6, 7, 8, 9), ids(0, 0, 1, 1, 2, 2)),
        (ids(9, 8, 7, 6, 5, 4), ids(1, 0, 2, 2, 5, 4)),
    ]
    for tokens, parents in steps:
        *left, attention = ours.attended(tokens, parents, 4)
        *right, expected = judge.attended(tokens, parents, 4)
        assert_same((left[0], left[1]), (right[0], right[1]))
        assert attention.dtype == np.float32
        assert attention.shape == (len(tokens), 7)
        np.testing.assert_allclose(attention, expected, atol=1e-6)


def test_a_bundle_without_attention_says_so(own_folder: Path) -> None:
    manifest = toy_manifest(own_folder).to_json()
    del manifest["heads"]["attention"]
    (own_folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    decoding = Engine.load(own_folder).start(toy_inputs(SOURCES))
    with pytest.raises(InputError, match=r"toy shows no attention: its model has none"):
        decoding.attended(ids(2, 2, 2), None, 1)

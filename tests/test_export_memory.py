"""What an exported transformer holds: its declared peak, and its tied table once."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from slow import slow_among

from seq2edge.export import (
    ExportOptions,
    ModelSpec,
    QualityLimits,
    Sample,
    export_model,
)
from seq2edge.models.build import build_model
from seq2edge.models.transformer_config import TransformerConfig
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.engine import Engine, EngineOptions
from seq2edge.runtime.footprint import measure_bare_process, measure_footprint
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.memory import Work, peak_bytes
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.translator import Translator
from seq2edge.runtime.vocabulary import Vocabulary
from seq2edge.runtime.workload import Workload

SIZE, WIDTH = 2000, 256
TOKENS = Vocabulary(SIZE, pad=0, unknown=1, start=2, end=3)
LIMIT = 120
DRAW = np.random.default_rng(2)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells enough"
)


@pytest.fixture(scope="module", params=slow_among(["fp32", "int8"], "fp32"))
def bundle(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """A transformer that knows nothing, all three embeddings one table."""
    config = TransformerConfig(
        source_vocabulary=SIZE,
        target_vocabulary=SIZE,
        size=WIDTH,
        encoder_layers=2,
        decoder_layers=1,
        encoder_feed_forward=256,
        decoder_feed_forward=256,
    )
    sources = [[*DRAW.integers(4, SIZE, size).tolist(), 3] for size in range(2, 14)]
    output = tmp_path_factory.mktemp("memory") / request.param
    export_model(
        build_model(config, seed=1).eval(),
        Sample.of_ids(sources),
        output,
        ModelSpec("tied", TOKENS, Limits(LIMIT, LIMIT), SearchOptions(4, max_length=9)),
        ExportOptions(
            request.param,
            limits=QualityLimits(min_agreement=0, max_log_prob_difference=1),
        ),
    )
    return Bundle.load(output)


def measured(bundle: Bundle, work: Work) -> int:
    """The peak of a process that writes as many tokens as the work says."""
    search = SearchOptions(
        work.beam, max_length=work.target, min_length=work.target - 1
    )
    lines = tuple(
        " ".join(map(str, DRAW.integers(4, SIZE, work.source).tolist()))
        for _ in range(2 * work.batch)
    )
    workload = Workload(lines, work.batch, search, EngineOptions())
    peak = measure_footprint(bundle.path, workload).peak_bytes
    assert peak is not None
    return peak


@pytest.mark.parametrize(
    "work",
    [
        Work(batch=1, beam=1, source=LIMIT, target=LIMIT),
        Work(batch=1, beam=4, source=LIMIT, target=LIMIT),
        Work(batch=32, beam=4, source=60, target=60),
    ],
    ids=lambda work: f"{work.batch}x{work.beam}",
)
def test_a_process_stays_below_its_declared_peak(bundle: Bundle, work: Work) -> None:
    declared = peak_bytes(bundle.manifest, work, measure_bare_process())
    assert 0.6 * declared < measured(bundle, work) < declared


def test_a_tied_table_is_on_disk_once_and_mapped_once(bundle: Bundle) -> None:
    manifest = bundle.manifest
    graphs = [manifest.encoder, manifest.heads["greedy"], manifest.heads["beam"]]
    places = [_tables(bundle.file(name)) for name in graphs]
    assert all(place == places[0] for place in places)
    [(offset, _)] = places[0]
    script = (
        "import json, sys; import numpy as np; from pathlib import Path; "
        "from seq2edge.runtime.engine import Engine; "
        "engine = Engine.load(sys.argv[1]); "
        f"source = np.arange({LIMIT})[None]; "
        f"lengths = np.array([{LIMIT}], np.int32); "
        "engine.encode({'source': source, 'source_lengths': lengths}); "
        "engine.head('greedy'), engine.head('beam'); "
        "lines = Path('/proc/self/maps').read_text().splitlines(); "
        "mapped = [line.split() for line in lines if 'weights.bin' in line]; "
        "print(json.dumps([int(each[2], 16) for each in mapped]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, bundle.path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout).count(int(offset)) == 1


@pytest.mark.parametrize("beam_size", [1, 4])
def test_tables_that_are_shared_change_no_translation(
    bundle: Bundle, beam_size: int
) -> None:
    assert bundle.manifest.tables
    alone = Bundle(bundle.path, replace(bundle.manifest, tables=()))
    sources = [[*DRAW.integers(4, SIZE, size).tolist(), 3] for size in range(2, 20)]
    shared, own = (
        Translator(
            Engine.load(each), TOKENS, each.manifest.limits, defaults=SearchOptions()
        ).generate(sources, SearchOptions(beam_size, max_length=12))
        for each in (bundle, alone)
    )
    assert shared == own


def _tables(path: Path) -> set[tuple[str, str]]:
    """Where the embeddings of a graph lie: what a Gather reads row by row."""
    graph = onnx.load(str(path), load_external_data=False).graph
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    found = set()
    for tensor in graph.initializer:
        if tensor.name in looked_up and [*tensor.dims] == [SIZE, WIDTH]:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            found.add((entries["offset"], entries["length"]))
    return found

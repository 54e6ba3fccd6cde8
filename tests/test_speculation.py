"""Drafts give what single steps give, whatever they are made of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from large_vocabulary import (
    SENTENCES,
    SIZE,
    VOCABULARY,
    begin,
    exported,
    nothing_of_a_source,
    same,
    with_shortlist,
)
from slow import slow_among

from seq2edge.export import drafting
from seq2edge.export.drafting import Frame
from seq2edge.runtime.bundle import Bundle, hash_files
from seq2edge.runtime.engine import Engine, EngineOptions
from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.shortlist import Shortlist
from seq2edge.runtime.speculation import DRAFTED
from seq2edge.runtime.translator import Translator

BUNDLES = {
    "transformer": "int8",
    "ssru, untied": "int8",
    "lstm": "int8",
    "gru, output bias": "fp32",
}


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each bundle, exported when it is first asked for."""
    made: dict[str, Path] = {}

    def bundle(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("drafts") / "bundle"
            made[name] = exported(name, BUNDLES[name], folder)
        return made[name]

    return bundle


@pytest.fixture(scope="module", params=slow_among(BUNDLES, "ssru, untied", "lstm"))
def folder(request: pytest.FixtureRequest, bundle_of: Callable[[str], Path]) -> Path:
    return bundle_of(request.param)


@pytest.fixture(scope="module")
def one(bundle_of: Callable[[str], Path]) -> Path:
    """A transformer, whose state has a position, which is kept, and a cache."""
    return bundle_of("transformer")


def greedy(folder: Path, speculates: bool, **changes: Any) -> list[Hypothesis]:
    """Each sentence by itself."""
    options = EngineOptions(speculates=speculates)
    translator = Translator.load(folder, options, check_hashes=False)
    search = replace(translator.defaults, beam_size=1, n_best=1, **changes)
    return [translator.generate([each], search)[0][0] for each in SENTENCES]


def test_drafts_give_what_single_steps_give(folder: Path) -> None:
    expected = greedy(folder, speculates=False)
    assert len({token for one in expected for token in one.tokens}) > 9
    same(greedy(folder, speculates=True), expected)


def test_a_draft_reads_transposed_keys_as_a_single_step_does(
    bundle_of: Callable[[str], Path],
) -> None:
    """By another kernel of onnxruntime the last bits of the sums would be others."""
    path = bundle_of("gru, output bias") / "decoder.draft.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    turned = {n.input[0] for n in graph.node if n.op_type == "Transpose"}
    assert not [name for name in turned if name.startswith("memory.")]
    [loop] = [node for node in graph.node if node.op_type == "Loop"]
    [body] = [field.g for field in loop.attribute if field.name == "body"]
    turned = {n.input[0] for n in body.node if n.op_type == "Transpose"}
    assert "memory.keys" in turned


@pytest.mark.parametrize(
    ("name", "common"),
    [
        ("transformer", [3, 5, 6, 7, 1098]),
        ("gru, output bias", [3]),
        pytest.param("lstm", [*range(0, SIZE, 2), 3], marks=pytest.mark.slow),
    ],
)
def test_missing_tokens_cost_time_only(
    name: str, common: list[int], tmp_path: Path
) -> None:
    shortlist = nothing_of_a_source(sorted(common))
    poor = exported(name, BUNDLES[name], tmp_path / "bundle", shortlist=shortlist)
    expected = greedy(poor, speculates=False)
    start = np.array([VOCABULARY.start])
    drafted = [begin(poor, [each]).ahead(start, DRAFTED)[1] for each in SENTENCES]
    wrong = [
        tokens.shape[1] < min(DRAFTED, len(one.tokens))
        for tokens, one in zip(drafted, expected, strict=True)
    ]
    assert any(wrong)
    same(greedy(poor, speculates=True), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_length": 1},
        {"max_length": DRAFTED},
        {"max_length": DRAFTED + 1, "forced_end": True},
        {"max_length": 5, "forced_end": True, "beam_rule": "transformers"},
        {"min_length": 4},
        {"suppressed": ((7,), (8,), (9,))},
    ],
    ids=str,
)
def test_options_hold_for_drafts_too(folder: Path, changes: dict[str, Any]) -> None:
    same(
        greedy(folder, speculates=True, **changes),
        greedy(folder, speculates=False, **changes),
    )


def test_a_draft_is_never_longer_than_asked_for(one: Path) -> None:
    decoding = begin(one, [SENTENCES[5]])
    token, length = np.array([VOCABULARY.start]), 0
    for most in (1, 2, 3):
        log_probs, tokens = decoding.ahead(token, most)
        assert tokens.shape == log_probs.shape
        assert 1 <= tokens.shape[1] <= most
        token, length = tokens[:, -1], length + tokens.shape[1]
    assert length > 3


def test_single_steps_may_follow_a_draft_and_drafts_these(one: Path) -> None:
    expected = greedy(one, speculates=False)
    for sentence, hypothesis in zip(SENTENCES, expected, strict=True):
        decoding, found = begin(one, [sentence]), list[int]()
        token = np.array([VOCABULARY.start])
        while len(found) + 4 < len(hypothesis.tokens):
            tokens = decoding.ahead(token, 3)[1][0].tolist()
            tokens += decoding.best(np.array(tokens[-1:]), None, 1)[1][0].tolist()
            found += tokens
            token = np.array(tokens[-1:])
        assert tuple(found) == hypothesis.tokens[: len(found)]


def test_nothing_is_drafted_behind_the_end(one: Path, tmp_path: Path) -> None:
    ends = next(h for h in greedy(one, speculates=False) if h.tokens)
    place = [h.tokens for h in greedy(one, speculates=False)].index(ends.tokens)
    # The first token that is written becomes the end token.
    manifest = Bundle.load(one).manifest
    assert manifest.vocabulary is not None
    copy = with_shortlist(one, nothing_of_a_source([*range(SIZE)]), tmp_path)
    changed = replace(manifest.vocabulary, end=ends.tokens[0])
    replace(manifest, vocabulary=changed, files=hash_files(copy)).write(copy)
    decoding = begin(copy, [SENTENCES[place]])
    tokens = decoding.ahead(np.array([VOCABULARY.start]), 10)[1]
    assert tokens.tolist() == [[ends.tokens[0]]]


def test_a_batch_goes_step_by_step(one: Path) -> None:
    engine = Engine.load(one)
    translator = replace(Translator.load(one), stepper=engine)
    search = replace(translator.defaults, beam_size=1)
    together = translator.generate(SENTENCES, search)
    same([one for one, *_ in together], greedy(one, speculates=True))
    assert [*engine.loaded] == ["greedy"]


def test_the_certificate_says_how_often_drafts_are_wrong(folder: Path) -> None:
    certificate: Any = Bundle.load(folder).manifest.certificate
    drafts = certificate["drafts"]
    assert drafts["sentences"] == drafts["identical"] == len(SENTENCES)
    assert drafts["identical_beams"] == len(SENTENCES)
    assert 0 <= drafts["missed_tokens"] <= 1
    assert 1 < drafts["candidates"] <= SIZE


def test_what_is_missed_is_told_of_sentences_that_it_was_not_learnt_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drafting, "COMMON", 2)
    counts = np.array([0.0, 4.0, 3.0, 0.0, 2.0])
    frequencies = drafting._Frequencies(counts, np.zeros(5), end=0)
    assert frequencies.common().tolist() == [0, 1, 2]
    assert frequencies.common(without=(2, 2, 4)).tolist() == [0, 1, 2]
    assert frequencies.common(without=(2, 2)).tolist() == [0, 1, 4]
    assert counts.tolist() == [0, 4, 3, 0, 2]


def test_a_shortlist_is_read_as_it_was_written(tmp_path: Path) -> None:
    counts, of_source = np.array([2, 0, 1]), np.array([5, 9, 70000])
    Shortlist(np.array([1, 3, 5]), counts, of_source).save(tmp_path / "list.npy")
    read = Shortlist.load(tmp_path / "list.npy")
    assert read.own(np.array([0, 2, 0])).tolist() == [9, 70000]
    assert read.candidates(np.array([1])).tolist() == [1, 3, 5]
    assert read.candidates(np.array([0, 2, 0])).tolist() == [1, 3, 5, 9, 70000]
    # A source token that the list was not made for, as an added one.
    assert read.candidates(np.array([7])).tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    "content", [np.zeros(0), np.arange(6), np.array([9, 9]), np.array([[1]])]
)
def test_a_damaged_shortlist_is_refused(
    content: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    np.save(tmp_path / "list.npy", content)
    with pytest.raises(BundleError, match="shortlist"):
        Shortlist.load(tmp_path / "list.npy")
    (tmp_path / "list.npy").write_bytes(b"none")
    with pytest.raises(BundleError, match="is no shortlist"):
        Shortlist.load(tmp_path / "list.npy")


@pytest.mark.parametrize("missing", ["verify", "beam_ahead"])
def test_a_shortlist_without_drafts_contradicts_itself(one: Path, missing: str) -> None:
    manifest = Bundle.load(one).manifest
    heads = {k: v for k, v in manifest.heads.items() if k != missing}
    with pytest.raises(BundleError, match="no heads that read it"):
        replace(manifest, heads=heads)


@pytest.mark.parametrize(
    ("sources", "front", "back"),
    [
        ([[9, 5, 6, 3], [9, 7, 3]], (9,), (3,)),
        ([[5, 3], [6, 7, 3]], (), (3,)),
        ([[5, 6, 3]], (5, 6), ()),
        ([[4], [5, 6]], (), ()),
    ],
)
def test_a_frame_is_what_all_sources_share(
    sources: list[list[int]], front: tuple[int, ...], back: tuple[int, ...]
) -> None:
    frame = Frame.of([np.array(source) for source in sources])
    assert (frame.front, frame.back) == (front, back)


def test_a_small_vocabulary_gets_no_drafts() -> None:
    toy = Path(__file__).parent / "data" / "toy-int8"
    manifest = Bundle.load(toy).manifest
    assert manifest.shortlist is None
    assert "draft" not in manifest.heads


def test_options_say_whether_drafts_are_made(one: Path) -> None:
    assert hasattr(begin(one, [SENTENCES[0]]), "ahead")
    assert not hasattr(begin(one, [SENTENCES[0]], speculates=False), "ahead")

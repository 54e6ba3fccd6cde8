"""The benchmark against peers: which sentences, which figures, what the page says."""

from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import peers_page
import pytest
import recurrent_page
from peers import command_line
from peers_figures import Spread, Turn, identical, spread, timings
from peers_measure import Memory, Parity, Protocol, Start, about_work, compare
from peers_process import Entry
from peers_work import Work, candidates, choose, near, read_sources

BASE, OURS = "CTranslate2 int8", "seq2edge int8"


def work(beam: int, lengths: list[int]) -> Work:
    sources = [[7] * 19] * len(lengths)
    return Work(beam, sources, lengths, candidates=9, agreed=5, fitting=4, slack=2)


def test_the_corpus_gives_every_source_once(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tsv", tmp_path / "other.tsv"
    one.write_text("a\tx\nb\ty\na\tz\n", encoding="utf-8")
    other.write_text("c\tx\nb\ty\n", encoding="utf-8")
    assert read_sources([one, other]) == ["a", "b", "c"]


def test_the_range_of_lengths_is_the_narrowest_that_holds_enough() -> None:
    lengths = [20, 22, 17, 26, 90]
    assert near(lengths, 2) == (2, [0, 1])
    assert near(lengths, 3) == (3, [0, 1, 2])
    assert near(lengths, 4) == (6, [0, 1, 2, 3])
    assert near(lengths, 5) == (16, [0, 1, 2, 3])


def test_candidates_are_a_draw_of_the_sentences_that_fit() -> None:
    texts = [f"{'x ' * count}end" for count in (3, 17, 18, 19, 20, 21, 40)]
    found = candidates(texts, lambda text: [1] * len(text.split()), 4, 3)
    assert found.found == 5
    assert found.slack == 2
    assert len(found.sources) == 3
    assert {len(source) for source in found.sources} <= {18, 19, 20, 21, 22}


def test_only_sentences_are_timed_that_all_write_equally_long() -> None:
    sources = [[n] * (18 + n) for n in range(5)]
    written = {"ours": [20, 19, 21, 20, 40], "theirs": [20, 18, 21, 20, 40]}
    chosen = choose(sources, written, beam=4, wanted=3)
    assert chosen.sources == [sources[0], sources[2], sources[3]]
    assert chosen.lengths == [20, 21, 20]
    assert (chosen.candidates, chosen.agreed, chosen.fitting) == (5, 4, 3)
    assert chosen.repeated == 0


def test_too_few_sentences_are_repeated_and_counted() -> None:
    chosen = choose([[1], [2, 2]], {"ours": [20, 21], "theirs": [20, 21]}, 1, 5)
    assert len(chosen.sources) == 5
    assert chosen.repeated == 3
    assert chosen.tokens == sum(20 if len(one) == 1 else 21 for one in chosen.sources)


def test_no_sentence_that_all_write_equally_long_is_an_error() -> None:
    with pytest.raises(SystemExit, match="equally many tokens"):
        choose([[1]], {"ours": [20], "theirs": [21]}, 1, 1)


def test_batches_hold_neighbours() -> None:
    chosen = choose([[1] * n for n in (22, 18, 20)], {"ours": [20, 20, 20]}, 1, 3)
    lengths = [[len(one) for one in batch] for batch in chosen.batches(2)]
    assert lengths == [[18, 20], [22]]


def test_a_spread_has_the_median_and_the_quartiles() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


def test_ratios_are_of_the_medians_of_a_case() -> None:
    turns = [
        Turn(name, 1, 1, batch, seconds, seconds, [20, 20])
        for batch, factor in ((1, 1.0), (8, 0.5))
        for name, its in ((OURS, (0.2, 0.1, 0.3)), (BASE, (0.1, 0.4, 0.1)))
        for seconds in (factor * one for one in its)
    ]
    first, base, batched, _ = timings(turns, [work(1, [20, 20])], BASE)
    assert first.milliseconds.median == 100.0
    assert first.tokens_per_second == 200.0
    assert first.times_as_fast == 0.5
    assert base.times_as_fast == 1.0
    assert batched.milliseconds.median == 50.0
    assert batched.times_as_fast == 0.5


def test_other_lengths_and_busy_cores_are_reported() -> None:
    turns = [Turn(BASE, 1, 4, 1, 0.1, 0.2, [20, 19]) for _ in range(3)]
    [found] = timings(turns, [work(4, [20, 20])], BASE)
    assert found.other_lengths == 3
    assert found.cores == 2.0


def test_tokens_are_compared_with_the_reference_and_with_the_same_tool() -> None:
    entries = [
        Entry("right", "", Path(), ()),
        Entry("fp32", "", Path(), ()),
        Entry("int8", "", Path(), (), exact="fp32"),
    ]
    written = {
        ("right", 1): [[1, 2], [3], [4]],
        ("fp32", 1): [[1, 2], [3], [5]],
        ("int8", 1): [[1, 2], [6, 6], [5]],
    }
    assert identical(written["right", 1], written["fp32", 1]) == 2
    *_, last = compare(entries, written, protocol(beams=(1,), reference="right"))
    assert last == Parity("int8", 1, 3, as_reference=1, as_exact=2, same_length=2)


def protocol(beams: tuple[int, ...] = (1, 4), reference: str = BASE) -> Protocol:
    return Protocol(reference, BASE, beams, (1, 8), (1, 2), 2, rounds=3, starts=5)


def record(beams: tuple[int, ...] = (1, 4)) -> dict[str, Any]:
    """A record as `measure` makes it, of two contenders."""
    names = (OURS, BASE)
    works = [work(beam, [20, 20]) for beam in beams]
    turns = [
        Turn(name, threads, beam, batch, seconds, seconds, [20, 20])
        for threads in (1, 2)
        for beam in beams
        for batch in (1, 8)
        for name, seconds in ((BASE, 0.1), (OURS, 0.08))
    ]
    return {
        "command": "python benchmarks/peers.py marian test.tsv --output docs",
        "machine": {
            "processor": "A Processor",
            "instructions": ["avx2"],
            "cores": 2,
            "python": "3.11.7",
            "load_average": [0.1, 0.2, 0.3],
        },
        "versions": {"numpy": "2.0"},
        "protocol": asdict(protocol(beams)),
        "candidates": {"found": 1200, "slack": 2},
        "works": [about_work(one) for one in works],
        "contenders": [
            {"name": name, "details": {"beam rule": "x"}, "model_bytes": 2_000_000}
            for name in names
        ],
        "parity": [
            asdict(Parity(name, beam, 9, 8, 7, 9)) for name in names for beam in beams
        ],
        "timings": [asdict(one) for one in timings(turns, works, BASE)],
        "starts": [asdict(Start(name, Spread(90.0, 85.5, 95.0))) for name in names],
        "memory": [
            asdict(Memory(name, beam, 1, 30_000_000, 31_000_000, 32_000_000))
            for beam in beams
            for name in names
        ],
    }


def marian() -> dict[str, Any]:
    sizes = {"d_model": 64, "encoder_layers": 6, "decoder_layers": 2}
    model = {"name": "marian", "parameters": 1_000_000, "vocab_size": 8000}
    return record() | {"model": model | sizes}


def recurrent() -> dict[str, Any]:
    model = {
        "name": "gru",
        "parameters": 1_000_000,
        "cell": "gru",
        "attention": "general",
        "encoder_layers": 2,
        "encoder_hidden": 256,
        "bidirectional": True,
        "decoder_layers": 2,
        "decoder_hidden": 320,
        "target_vocabulary": 5000,
    }
    return record((1,)) | {"model": model, "absent": {"torch.compile": "no compiler"}}


def test_the_page_says_how_it_was_made_and_has_every_figure() -> None:
    text = peers_page.page(marian())
    assert "    python benchmarks/peers.py marian test.tsv --output docs" in text
    assert "A Processor (avx2), 2 cores" in text
    assert "began: 0.10, 0.20, 0.30" in text
    assert f"| {OURS} | 8 of 9 | 7 of 9 | 8 of 9 | 7 of 9 |" in text
    assert text.count("### One sentence at a time, one thread") == 1
    assert text.count("### 8 sentences at once, 2 threads") == 1
    own = "40.00 (40.00 to 40.00) | 500 | 1.25"
    assert text.count(f"| {OURS} | {own} | {own} |") == 4
    assert f"| {BASE} | 90 (86 to 95) | 2.0 | 30.0 | 31.0 | 32.0 |" in text
    assert "chosen: none." in text


def test_the_recurrent_page_says_who_is_absent() -> None:
    text = recurrent_page.page(recurrent())
    assert "2 layers of GRU" in text
    assert "(256 features, two directions)" in text
    assert "- torch.compile: not to be had on this machine (no compiler)" in text


def test_the_plots_are_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    peers_page.plots(marian(), tmp_path)
    recurrent_page.plots(recurrent(), tmp_path)
    pictures = sorted(tmp_path.iterdir())
    assert [one.name for one in pictures] == [
        "benchmarks-gru-speed.svg",
        "benchmarks-speed.svg",
        "benchmarks-start.svg",
    ]
    for picture in pictures:
        assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_the_command_is_shown_without_the_folders_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [
        "x",
        "/home/me/marian",
        "a/test.tsv",
        "--bundle",
        "fast=/tmp/b",
        "--work=o",
    ]
    monkeypatch.setattr("sys.argv", given)
    assert command_line("peers.py") == (
        "python benchmarks/peers.py marian a/test.tsv --bundle fast=b --work=o"
    )

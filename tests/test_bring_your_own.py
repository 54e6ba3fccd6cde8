"""The three models of examples/bring_your_own, and the page that explains them."""

import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from slow import slow_among
from torch import nn
from torch.nn.utils import rnn

from seq2edge.runtime import SearchOptions, Translator

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "bring-your-own.md"
SCRIPTS = ("lstm_encoder_decoder", "gru_context", "attention_gru")
EXPORT = re.compile(r"# --- the export.*?---\n(.*?)# --- the end", re.DOTALL)
TRACED = (7, 11)  # lengths of source that the export traces and examines with
ORIGINALS = (
    nn.RNN.forward,
    nn.GRU.forward,
    nn.LSTM.forward,
    rnn.pack_padded_sequence.__code__,
    rnn.pad_packed_sequence.__code__,
)

task: Any = import_module("reversed_digits")


@dataclass(frozen=True)
class Example:
    """A script that has run."""

    script: Any
    model: Any
    output: Path
    printed: str


@pytest.fixture(
    scope="module",
    params=slow_among(SCRIPTS, "gru_context", "lstm_encoder_decoder"),
)
def example(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Trained, exported and reported by the script's own main."""
    output = tmp_path_factory.mktemp(request.param)
    script: Any = import_module(request.param)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda line: lines.append(line))
        model = script.main(output)
    return Example(script, model, output, "\n".join(lines))


def best(bundle: Path, sources: Sequence[Any], options: SearchOptions) -> list[Any]:
    found = Translator.load(bundle).generate(sources, options)
    return [list(hypotheses[0].tokens) for hypotheses in found]


def test_model_and_bundles_reach_the_goal(example: Example) -> None:
    shares = re.findall(r"(\w+): ([\d.]+)% of 400 held-out", example.printed)
    assert [name for name, _ in shares] == ["torch", "fp32", "int8"]
    assert all(float(share) >= 95 for _, share in shares)


def test_fp32_says_what_torch_says_at_lengths_never_traced(example: Example) -> None:
    draw = random.Random(3)
    known = {tuple(source) for source in task.split(example.script.LONGEST)[0]}
    sources = [
        source
        for source in task.sources(1, 12, 60, seed=9)
        if len(source) not in TRACED and tuple(source) not in known
    ]
    translator = Translator.load(example.output / "fp32")
    options = SearchOptions(beam_size=1, max_length=20)
    for size in [*range(1, 9)] * 4:
        batch = draw.sample(sources, size)
        found = translator.generate(batch, options)
        given = [list(hypotheses[0].tokens) for hypotheses in found]
        assert given == example.model.answer(batch, max_length=20)


def test_int8_searches_by_beam_too(example: Example) -> None:
    _, held_out = task.split(example.script.LONGEST)
    answers = best(example.output / "int8", held_out, SearchOptions(beam_size=4))
    assert task.accuracy(answers, held_out) >= 0.95


def test_int8_is_smaller(example: Example) -> None:
    sizes = [
        sum(file.stat().st_size for file in (example.output / name).iterdir())
        for name in ("int8", "fp32")
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_torch_is_as_it_was_and_training_goes_on(example: Example) -> None:
    assert (
        nn.RNN.forward,
        nn.GRU.forward,
        nn.LSTM.forward,
        rnn.pack_padded_sequence.__code__,
        rnn.pad_packed_sequence.__code__,
    ) == ORIGINALS
    assert not [name for name, _ in example.model.named_buffers()]
    training, _ = task.split(example.script.LONGEST)
    model = example.model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    source, lengths, target = next(iter(task.batches(training, 8, 1)))
    before = [weight.detach().clone() for weight in model.parameters()]
    logits = model(source, lengths, target)
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=task.PAD
    )
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    pairs = zip(model.parameters(), before, strict=True)
    assert all(not torch.equal(weight, old) for weight, old in pairs)
    for weight, old in zip(model.parameters(), before, strict=True):
        weight.data.copy_(old)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_export_takes_at_most_15_lines(name: str) -> None:
    path = ROOT / "examples" / "bring_your_own" / f"{name}.py"
    found = EXPORT.search(path.read_text(encoding="utf-8"))
    assert found is not None
    lines = [line for line in found[1].splitlines() if line.strip()]
    assert "export_model(" in found[1]
    assert 10 < len(lines) <= 15


def test_a_model_below_the_goal_fails_its_script(
    example: Example, capsys: pytest.CaptureFixture[str]
) -> None:
    _, held_out = task.split(example.script.LONGEST)
    with pytest.raises(SystemExit, match="missed the goal of 95%"):
        task.report(lambda found: [[] for _ in found], example.output, held_out[:20])
    assert "torch: 0.0% of 20" in capsys.readouterr().out


@pytest.mark.slow  # the page trains a model of each kind
def test_every_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) >= 5
    monkeypatch.setitem(sys.modules, "bring_your_own", type(sys)("bring_your_own"))
    namespace: dict[str, Any] = {"__name__": "bring_your_own"}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), namespace)

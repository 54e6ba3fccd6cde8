"""Training learns, resumes to the same weights, and picks its schedule as asked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_language import recipe, write_corpus

from seq2edge.models.checkpoint import Checkpoint
from seq2edge.models.precision import bf16_speedup
from seq2edge.models.recipe import Recipe, TrainingRecipe
from seq2edge.models.schedule import learning_rate
from seq2edge.models.train import train
from seq2edge.runtime.errors import ConfigError, OutputError


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder)
    with (folder / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("half a pair\n")
    return folder


class Killed(BaseException):
    """Stands for a kill: nothing of the run gets a chance to tidy up."""


def test_training_learns_a_toy_language(data: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    output = train(recipe(), data, tmp_path / "out", events.append)
    assert events[0]["left_out"] == {"no TAB": 1}
    finished = events[-1]
    assert finished["event"] == "finished"
    assert finished["dev_bleu"] > 95
    info = Checkpoint.load(output).info
    assert info.training["dev_bleu"] == finished["dev_bleu"]
    assert info.training["pairs"] == 1500
    sample = (output / "sample.tsv").read_text(encoding="utf-8").splitlines()
    assert all(len(line.split("\t")) == 2 for line in sample)


@pytest.mark.parametrize("kill_at", [3, 23, 30])
def test_a_killed_run_resumes_to_the_same_weights(
    data: Path, tmp_path: Path, kill_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = recipe(epochs=2, warmup_steps=5, average=1)
    straight = train(short, data, tmp_path / "straight", lambda event: None)
    updates = 0
    update = torch.optim.Adam.step

    def deadly(self: torch.optim.Adam, *args: Any) -> Any:
        nonlocal updates
        updates += 1
        if updates == kill_at:
            raise Killed
        return update(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", deadly)
    with pytest.raises(Killed):
        train(short, data, tmp_path / "killed", lambda event: None)
    events: list[dict[str, Any]] = []
    resumed = train(short, data, tmp_path / "killed", events.append)
    if kill_at > 7:
        resumed_at = next(e["step"] for e in events if e["event"] == "resume")
        assert kill_at - 1 - resumed_at < 7  # no more is lost than since the last save
    first, second = (
        load_file(folder / "model.safetensors") for folder in (straight, resumed)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_is_not_continued_by_another_recipe(data: Path, tmp_path: Path) -> None:
    short = recipe(epochs=1)
    train(short, data, tmp_path, lambda event: None)
    with pytest.raises(ConfigError, match=r"another recipe \(\[training\] differ\)"):
        train(recipe(epochs=2), data, tmp_path, lambda event: None)


def test_a_recipe_without_its_corpus_can_be_mended(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        train(recipe(), tmp_path, tmp_path / "out", lambda event: None)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_not_a_run_is_left_alone(data: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("keep", encoding="utf-8")
    with pytest.raises(OutputError, match="holds no training run"):
        train(recipe(), data, tmp_path, lambda event: None)
    with pytest.raises(OutputError, match="can't be written"):
        train(recipe(), data, precious / "out", lambda event: None)
    assert precious.read_text(encoding="utf-8") == "keep"


def test_patience_ends_a_run_that_stands_still(data: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    idle = recipe(learning_rate=1e-9, evaluate_every=5, patience=2, epochs=4)
    train(idle, data, tmp_path, events.append)
    assert sum(event["event"] == "evaluation" for event in events) == 4


def test_more_pieces_than_the_corpus_has_is_a_clear_error(
    data: Path, tmp_path: Path
) -> None:
    values = {
        "about": {"name": "toy"},
        "data": {"train": ["train.tsv"], "dev": ["dev.tsv"]},
        "tokenizer": {"vocabulary_size": 9000},
    }
    with pytest.raises(ConfigError, match=r"tokenizer\.vocabulary_size"):
        train(Recipe.from_values(values, "r"), data, tmp_path, lambda event: None)


def test_the_learning_rate_warms_up_and_decays() -> None:
    linear = TrainingRecipe(learning_rate=1.0, warmup_steps=4)
    rates = [learning_rate(linear, step, 12) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == 0.5
    assert rates[11] == pytest.approx(1 / 8)
    cosine = TrainingRecipe(learning_rate=1.0, warmup_steps=4, decay="cosine")
    assert learning_rate(cosine, 8, 12) == pytest.approx(0.5)
    root = TrainingRecipe(learning_rate=1.0, warmup_steps=4, decay="inverse_sqrt")
    assert learning_rate(root, 15, 999) == pytest.approx(0.5)


def test_the_bf16_measurement_gives_a_ratio() -> None:
    assert bf16_speedup(rows=8, size=16, repeats=1) > 0

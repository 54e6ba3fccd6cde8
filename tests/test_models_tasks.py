"""Every task is learnt from a recipe, and its checkpoint says the same again."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_tasks import TASKS, VERSES, ToyTask

from seq2edge.models.build import build_model
from seq2edge.models.checkpoint import Checkpoint
from seq2edge.models.recurrent_model import RecurrentModel
from seq2edge.models.tagger import Tagger
from seq2edge.models.torch_stepper import TorchLabeller, TorchStepper
from seq2edge.models.train import train
from seq2edge.runtime import schema
from seq2edge.runtime.errors import CheckpointError, ConfigError
from seq2edge.runtime.evaluate import exact_share, label_accuracy
from seq2edge.runtime.manifest import TokenizerSpec
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.tokenizer import load_tokenizer
from seq2edge.runtime.translator import Translator

LEAST = {
    "tagger": 99.0,
    "classifier": 99.0,
    "class to sequence": 99.0,
    "vector to sequence": 95.0,
    "question answering": 95.0,
    "frames": 90.0,
}
Events = list[dict[str, Any]]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of the tasks, each made when a test first asks for it."""
    folder = tmp_path_factory.mktemp("tasks")
    return {name: folder / name.replace(" ", "-") for name in TASKS}


def checkpoint(trained: dict[str, Path], name: str) -> Checkpoint:
    path = trained[name] / "checkpoint"
    if not path.exists():
        trained[name].mkdir()
        TASKS[name].write(trained[name])
        train(TASKS[name].recipe(), trained[name], path, lambda event: None)
    return Checkpoint.load(path)


def translator(loaded: Checkpoint) -> Translator:
    info = loaded.info
    assert isinstance(loaded.module, RecurrentModel)
    assert info.vocabulary is not None
    assert info.tokenizer is not None
    return Translator(
        TorchStepper(loaded.module),
        info.vocabulary,
        info.limits,
        load_tokenizer(info.tokenizer, loaded.path),
        inputs=info.inputs,
        folder=loaded.path,
    )


def predictor(loaded: Checkpoint) -> Predictor:
    info = loaded.info
    assert info.tokenizer is not None
    task = info.model.task
    assert task in ("tagging", "classification")
    return Predictor(
        TorchLabeller(loaded.module, inputs=info.inputs),
        "tagging" if task == "tagging" else "classification",
        info.labels,
        info.limits,
        load_tokenizer(info.tokenizer, loaded.path),
        inputs=info.inputs,
        folder=loaded.path,
        streams=True,
    )


def sample(loaded: Checkpoint) -> tuple[list[str], list[str]]:
    """Records and references, as an export reads them."""
    text = (loaded.path / "sample.tsv").read_text(encoding="utf-8")
    pairs = [line.rpartition("\t") for line in text.splitlines()]
    return [record for record, _, _ in pairs], [output for _, _, output in pairs]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_learnt_from_its_recipe(name: str, trained: dict[str, Path]) -> None:
    loaded = checkpoint(trained, name)
    info = loaded.info
    metric = "accuracy" if info.labels else "exact"
    assert info.metric == metric
    score = info.training[f"dev_{metric}"]
    assert isinstance(score, float)
    assert score >= LEAST[name]
    records, references = sample(loaded)
    if info.labels:
        found = [one.labels for one in predictor(loaded).predict_batch(records)]
        again = label_accuracy(found, [text.split() for text in references])
        assert info.limits.target_tokens == 0
        assert info.vocabulary is None
        assert info.search is None
    else:
        options = SearchOptions(beam_size=1)
        written = translator(loaded).translate_batch(records, options)
        again = exact_share([one.text for one in written], [[r] for r in references])
    assert again == pytest.approx(score, abs=0.01)


def test_the_tagger_streams_what_it_says_of_the_whole(trained: dict[str, Path]) -> None:
    loaded = checkpoint(trained, "tagger")
    labeller = predictor(loaded)
    text = "the light light the dog runs"
    whole = labeller.predict(text)
    assert whole.labels == ("ARTICLE", "NOUN", "VERB", "ARTICLE", "NOUN", "VERB")
    stream = labeller.stream()
    for index, word in enumerate(text.split()):
        label, log_prob = stream.push(word)
        assert label == whole.labels[index]
        assert log_prob == pytest.approx(whole.log_probs[index], abs=1e-5)
    assert isinstance(loaded.info.tokenizer, TokenizerSpec)
    assert loaded.info.tokenizer.words
    assert not loaded.info.tokenizer.append_end


def test_each_class_becomes_its_sequence(trained: dict[str, Path]) -> None:
    loaded = checkpoint(trained, "class to sequence")
    [spec] = loaded.info.inputs
    assert sorted(spec.labels) == sorted(VERSES)
    found = translator(loaded).translate_batch(list(VERSES))
    assert [one.text for one in found] == list(VERSES.values())
    assert loaded.info.tokenizer is not None
    assert loaded.info.tokenizer.source == loaded.info.tokenizer.target == "target.spm"


def test_the_frames_of_the_sample_lie_in_the_checkpoint(
    trained: dict[str, Path],
) -> None:
    loaded = checkpoint(trained, "frames")
    records, _ = sample(loaded)
    assert records[0] == "sample/0001.npy"
    frames = np.load(loaded.path / records[-1])
    assert frames.shape[1] == 4
    assert len(set(records)) == len(records)


@pytest.mark.parametrize("name", ["classifier", "frames"])
def test_any_task_resumes_to_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = dataclasses.replace(TASKS[name], count=100)
    task.write(tmp_path)
    short = task.recipe(training={"epochs": 2, "save_every": 2})
    straight = train(short, tmp_path, tmp_path / "straight", lambda event: None)
    with monkeypatch.context() as patch:
        patch.setattr("seq2edge.models.train._Run._evaluate", _killed)
        with pytest.raises(KeyboardInterrupt):
            train(short, tmp_path, tmp_path / "killed", lambda event: None)
    events: Events = []
    resumed = train(short, tmp_path, tmp_path / "killed", events.append)
    assert any(event["event"] == "resume" for event in events)
    first, second = (Checkpoint.load(path).module for path in (straight, resumed))
    for key, weight in first.named_parameters():
        assert torch.equal(weight, second.get_parameter(key))


def _killed(run: object) -> None:
    raise KeyboardInterrupt


def test_exact_counts_sequences_that_are_right_as_a_whole(tmp_path: Path) -> None:
    task = dataclasses.replace(TASKS["tagger"], count=100)
    task.write(tmp_path)
    recipe = task.recipe(training={"epochs": 1}, evaluation={"metric": "exact"})
    loaded = Checkpoint.load(
        train(recipe, tmp_path, tmp_path / "out", lambda event: None)
    )
    assert loaded.info.metric == "exact"
    records, references = sample(loaded)
    found = [one.text for one in predictor(loaded).predict_batch(records)]
    right = exact_share(found, [[reference] for reference in references])
    assert loaded.info.training["dev_exact"] == pytest.approx(right, abs=0.01)
    assert right < 100  # one epoch is too few


def test_a_long_line_is_not_lost_to_the_tokenizer(tmp_path: Path) -> None:
    task = dataclasses.replace(TASKS["classifier"], count=60)
    task.write(tmp_path)
    with (tmp_path / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("long " * 2000 + "\tglad\n")
    recipe = task.recipe(training={"epochs": 1})
    events: Events = []
    output = train(recipe, tmp_path, tmp_path / "out", events.append)
    assert events[0]["left_out"] == {"too long": 1}
    [word] = predictor(Checkpoint.load(output)).predict_batch(["long"])
    assert not word.flags.unknown


def test_what_is_unknown_and_left_out_is_reported(tmp_path: Path) -> None:
    task = dataclasses.replace(TASKS["tagger"], count=50)
    task.write(tmp_path)
    with (tmp_path / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("the rare dog\tARTICLE NOUN\n" + "the odd odd sun\tA A A A\n")
    # All but one of the words that this corpus has (dog, light, runs, shines, sun, the)
    # and the four special ids: "odd" comes last.
    recipe = task.recipe(
        tokenizer={"kind": "word", "vocabulary_size": 10},
        training={"epochs": 1},
    )
    events: Events = []
    train(recipe, tmp_path, tmp_path / "out", events.append)
    assert events[0]["left_out"] == {"number of tags": 1}
    assert events[0]["unknown"] == 1
    assert events[0]["unknown_examples"] == ["odd"]


def test_a_corpus_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("a b\tX\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no line that can be used \(number of tags"):
        train(TASKS["tagger"].recipe(), tmp_path, tmp_path / "out", lambda event: None)


@pytest.mark.parametrize("kind", ["char", "word"])
def test_words_and_characters_are_as_many_as_there_are(
    kind: str, tmp_path: Path
) -> None:
    task = dataclasses.replace(TASKS["classifier"], count=60)
    task.write(tmp_path)
    recipe = task.recipe(tokenizer={"kind": kind}, training={"epochs": 1})
    loaded = Checkpoint.load(
        train(recipe, tmp_path, tmp_path / "out", lambda event: None)
    )
    letters = set("it is not so very quite good bad") - {" "} | {"\u2581"}
    # "it is not so very quite good bad" and the four special ids
    expected = {"word": 8 + 4, "char": len(letters) + 4}[kind]
    assert loaded.info.model.source_vocabulary == expected


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("labels", ["NOUN"], "labels are 1, the model's 3"),
        ("search", schema.to_json(SearchOptions()), "search must be null"),
        ("inputs", [], "inputs are not those of the model"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    key: str, value: object, message: str, trained: dict[str, Path], tmp_path: Path
) -> None:
    path = checkpoint(trained, "tagger").path / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps({**values, key: value})
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.load(tmp_path)


def test_a_bidirectional_tagger_has_no_state_to_go_on_from() -> None:
    task: ToyTask = TASKS["tagger"]
    config = task.recipe(model={"bidirectional": True}).model_config(8, 0, labels=3)
    model = build_model(config, seed=0).eval()
    assert isinstance(model, Tagger)
    outputs, state = model.encode(
        source=torch.tensor([[4, 5]]), source_lengths=torch.tensor([2])
    )
    assert outputs.keys() == {"logits"}
    assert state == {}

"""The small tasks of examples/tasks, by the commands that a user would type."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from make_data import SIZES, TASKS, write_task
from measure import GOALS, RECIPES, WRONG
from slow import slow_among

from seq2edge.cli import main
from seq2edge.models.recipe import Recipe


def seq2edge(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("task", [*TASKS, "transcription"])
def test_data_is_the_same_every_time_and_splits_share_no_input(
    task: str, tmp_path: Path
) -> None:
    sizes = {"train": 60, "dev": 20, "test": 30}
    texts = []
    for name in ("one", "other"):
        write_task(task, tmp_path / name, sizes)
        texts.append([(tmp_path / name / f"{s}.tsv").read_text("utf-8") for s in sizes])
    assert texts[0] == texts[1]
    splits = [text.splitlines() for text in texts[0]]
    assert [len(lines) for lines in splits] == list(sizes.values())
    inputs = [{line.rsplit("\t", 1)[0] for line in lines} for lines in splits]
    assert not inputs[0] & inputs[1]
    assert not inputs[0] & inputs[2]
    assert not inputs[1] & inputs[2]


def test_every_task_has_a_recipe_a_goal_and_a_wrong_structure() -> None:
    tasks = {*TASKS, "transcription"}
    assert tasks == set(GOALS) == set(WRONG)
    assert {path.stem for path in RECIPES.glob("*.toml")} == tasks
    for task in tasks:
        assert Recipe.load(RECIPES / f"{task}.toml").training.threads == 1


@pytest.mark.parametrize(
    "task", slow_among(["tagging", "classification", "shortening"], "shortening")
)
def test_a_task_reaches_its_goal_from_data_to_int8(task: str, tmp_path: Path) -> None:
    data, checkpoint, bundle = (tmp_path / n for n in ("data", "trained", "bundle"))
    write_task(task, data, SIZES | {"test": 200})
    recipe = RECIPES / f"{task}.toml"
    seq2edge("train", recipe, "--data", data, "--output", checkpoint)
    seq2edge("export", checkpoint, bundle, "--precision", "int8")
    seq2edge("verify", bundle)
    lines = (data / "test.tsv").read_text(encoding="utf-8").splitlines()
    source, reference = tmp_path / "source", tmp_path / "reference"
    for path, column in ((source, 0), (reference, 1)):
        text = "".join(line.split("\t")[column] + "\n" for line in lines)
        path.write_text(text, encoding="utf-8")
    shown = seq2edge("evaluate", bundle, "--source", source, "--reference", reference)
    name = "exact" if task == "shortening" else "accuracy"
    [line] = [one for one in shown.splitlines() if one.startswith(name)]
    assert float(line.split()[1]) >= GOALS[task]

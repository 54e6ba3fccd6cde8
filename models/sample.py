"""The dev lines that a checkpoint carries, for an export to be judged by."""

from pathlib import Path

from seq2edge.models.checkpoint import SAMPLE_FILES, Sample
from seq2edge.models.dev_set import DevSet
from seq2edge.models.task import Task

SENTENCES = 400  # fewer make BLEU too noisy a judge of int8


def make_sample(task: Task) -> Sample:
    """Lines of input with each of their references; frames become files beside them."""
    drawn = DevSet.draw(task.dev_corpus, task.dev, SENTENCES, seed=0)
    files: dict[str, Path] = {}
    lines = []
    for source, references in zip(drawn.sources, drawn.references, strict=True):
        record = _with_files(source, task, files)
        lines += [f"{record}\t{reference}" for reference in references]
    return Sample(lines, files)


def _with_files(record: str, task: Task, files: dict[str, Path]) -> str:
    """The record, its feature frames named by their place in the checkpoint."""
    fields = record.split("\t")
    for index, spec in enumerate(task.inputs):
        if spec.kind == "frames":
            name = f"{SAMPLE_FILES}/{len(files) + 1:04d}.npy"
            files[name] = task.data / fields[index]
            fields[index] = name
    return "\t".join(fields)

"""Train a model by a recipe: resumable, seeded, judged by dev BLEU.

A run may be killed at any moment; the same command goes on from the last save. All that
is random follows from the seed and the saved generator, so that a resumed run makes the
same updates as one that was never stopped.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seq2edge.models.batches import (
    Batch,
    epoch_batches,
    make_batch,
)
from seq2edge.models.checkpoint import (
    FORMAT,
    CheckpointInfo,
    distinct_weights,
    read_weights,
    save_weights,
    write_checkpoint,
)
from seq2edge.models.dev_set import DevSet, dev_loss
from seq2edge.models.precision import bf16_speedup
from seq2edge.models.recipe import Recipe
from seq2edge.models.recurrent_model import (
    RecurrentModel,
    build_model,
    count_parameters,
)
from seq2edge.models.schedule import learning_rate
from seq2edge.models.task import Event, Report, Task, prepare
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.models.training_state import (
    Evaluation,
    Progress,
    load_state,
    save_state,
)
from seq2edge.runtime.bundle import SearchDefaults
from seq2edge.runtime.search import SearchOptions
from seq2edge.runtime.translator import Translator

REPORT_EVERY = 20  # steps
SAMPLE_SENTENCES = 400  # of the dev set: fewer make BLEU too noisy a judge of int8


def train(recipe: Recipe, data_folder: Path, output: Path, report: Report) -> Path:
    """Train, or go on training, and write the checkpoint; returns its folder.

    `report` gets each event as a dict of plain values; data, model, resume, step,
    evaluation, saved and finished are the kinds.
    """
    task = prepare(recipe, data_folder, output, report)
    run = _Run(task, report)
    run.resume()
    run.train()
    weights, chosen = run.best_weights()
    _write(task, run, weights, chosen, output)
    report({"event": "finished", "output": str(output), **chosen})
    return output


class _Run:
    """The model, its optimizer and how far they are."""

    def __init__(self, task: Task, report: Report) -> None:
        recipe = task.recipe.training
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        self.task, self.recipe, self.report = task, recipe, report
        config = task.recipe.model_config(
            task.tokenizer.source_size, task.tokenizer.target_size
        )
        self.model: RecurrentModel = build_model(config, recipe.seed)
        betas = (recipe.adam_betas[0], recipe.adam_betas[1])
        self.adam = torch.optim.Adam(
            self.model.parameters(), recipe.learning_rate, betas=betas, eps=1e-9
        )
        self.progress = Progress()
        self.batches_per_epoch = len(self._epoch(0))
        self.steps = recipe.epochs * self.batches_per_epoch
        self.bf16 = self._wants_bf16()
        torch.manual_seed(recipe.seed)
        report(
            {
                "event": "model",
                "parameters": count_parameters(self.model),
                "steps": self.steps,
                "bf16": self.bf16,
            }
        )

    def resume(self) -> None:
        """Go on from the newest save, if there is one."""
        progress = load_state(self.task.folder, self.model, self.adam)
        if progress:
            self.progress = progress
            self.report({"event": "resume", "step": progress.step})

    def train(self) -> None:
        """Update until the epochs, or the patience, are used up."""
        began = time.monotonic() - self.progress.seconds
        window = _Window(self.progress.step)
        for indices in self._remaining():
            batch = make_batch(self.task.train, indices, self.task.vocabulary)
            window.add(self._update(batch), batch.tokens)
            self._advance(time.monotonic() - began)
            if window.steps == REPORT_EVERY:
                self.report({**window.event(self.steps), "rate": self._rate()})
                window = _Window(self.progress.step)
            if self._is_evaluation_due():
                self._evaluate()
            if self.progress.step % self.recipe.save_every == 0:
                self._save()
            if self.progress.stale > self.recipe.patience:
                break
        self._save()

    def best_weights(self) -> tuple[dict[str, Tensor], Event]:
        """The mean of the last snapshots, of as many as give the highest dev BLEU."""
        snapshots = [read_weights(path) for path in self._snapshots()]
        best: tuple[float, dict[str, Tensor], Event] | None = None
        for count in range(1, len(snapshots) + 1):
            weights = {
                name: torch.stack([s[name] for s in snapshots[-count:]]).mean(0).half()
                for name in snapshots[-1]
            }
            self._set_weights(weights)
            loss, bleu = self._judge()
            event = {"averaged": count, "dev_loss": loss, "dev_bleu": bleu}
            self.report({"event": "average", **event})
            if best is None or bleu > best[0]:
                best = (bleu, weights, event)
        assert best is not None  # the last step always evaluates
        return best[1], best[2]

    def _remaining(self) -> Iterator[Any]:
        for epoch in range(self.progress.epoch, self.recipe.epochs):
            batches = self._epoch(epoch)
            done = self.progress.batch if epoch == self.progress.epoch else 0
            yield from batches[done:]

    def _epoch(self, epoch: int) -> list[Any]:
        recipe = self.recipe
        return epoch_batches(self.task.train, recipe.batch_tokens, recipe.seed, epoch)

    def _update(self, batch: Batch) -> Tensor:
        self.model.train()
        for group in self.adam.param_groups:
            group["lr"] = self._rate()
        self.adam.zero_grad()
        with self._autocast():
            loss = self.model.loss(
                batch.source,
                batch.source_lengths,
                batch.target,
                batch.expected,
                self.recipe.label_smoothing,
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.adam.step()
        return loss.detach()

    def _advance(self, seconds: float) -> None:
        step = self.progress.step + 1
        epoch, batch = divmod(step, self.batches_per_epoch)
        self.progress = replace(
            self.progress, step=step, epoch=epoch, batch=batch, seconds=seconds
        )

    def _rate(self) -> float:
        return learning_rate(self.recipe, self.progress.step, self.steps)

    def _is_evaluation_due(self) -> bool:
        every = self.recipe.evaluate_every or self.batches_per_epoch
        return self.progress.step % every == 0 or self.progress.step == self.steps

    def _evaluate(self) -> None:
        step = self.progress.step
        loss, bleu = self._judge()
        stale = 0 if bleu > self.progress.best_bleu else self.progress.stale + 1
        self.progress = replace(
            self.progress,
            stale=stale,
            evaluations=(*self.progress.evaluations, Evaluation(step, loss, bleu)),
        )
        weights = distinct_weights(self.model, torch.float32)
        save_weights(weights, self.task.folder / f"snapshot-{step:08d}.safetensors")
        for path in self._snapshots()[: -self.recipe.average]:
            path.unlink()
        event = {"step": step, "dev_loss": loss, "dev_bleu": bleu}
        self.report({"event": "evaluation", **event})
        self._save()

    def _judge(self) -> tuple[float, float]:
        """Dev loss and dev BLEU of the present weights."""
        self.model.eval()
        task = self.task
        loss = dev_loss(self.model, task.dev, task.vocabulary)
        translator = Translator(
            TorchStepper(self.model), task.vocabulary, task.limits, task.tokenizer
        )
        options = SearchOptions(beam_size=task.recipe.evaluation.beam_size)
        bleu = task.dev_set.bleu(translator, options)
        return round(loss, 4), round(bleu, 2)

    def _save(self) -> None:
        save_state(self.task.folder, self.model, self.adam, self.progress)

    def _snapshots(self) -> list[Path]:
        return sorted(self.task.folder.glob("snapshot-*.safetensors"))

    def _set_weights(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                weight.copy_(weights[name])

    def _wants_bf16(self) -> bool:
        if self.recipe.autocast != "auto":
            return self.recipe.autocast == "bf16"
        speedup = bf16_speedup()
        self.report({"event": "bf16", "speedup": round(speedup, 2)})
        return speedup > 1.2  # casts cost something too

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.bf16:
            return nullcontext()
        return torch.autocast("cpu", dtype=torch.bfloat16)


class _Window:
    """Means over the steps since the last report."""

    def __init__(self, first: int) -> None:
        self.first, self.steps, self.tokens = first, 0, 0
        self.losses: list[Tensor] = []
        self.began = time.monotonic()

    def add(self, loss: Tensor, tokens: int) -> None:
        self.steps += 1
        self.tokens += tokens
        self.losses.append(loss)

    def event(self, steps: int) -> Event:
        seconds = time.monotonic() - self.began
        return {
            "event": "step",
            "step": self.first + self.steps,
            "steps": steps,
            "loss": round(float(torch.stack(self.losses).mean()), 4),
            "tokens_per_second": round(self.tokens / seconds),
        }


def _write(
    task: Task, run: _Run, weights: dict[str, Tensor], chosen: Event, output: Path
) -> None:
    evaluation, about = task.recipe.evaluation, task.recipe.about
    info = CheckpointInfo(
        format=FORMAT,
        about=about,
        model=run.model.config,
        vocabulary=task.vocabulary,
        tokenizer=task.spec,
        limits=task.limits,
        search=SearchDefaults(
            evaluation.recommended_beam_size, evaluation.recommended_length_penalty
        ),
        training={
            **chosen,
            "parameters": count_parameters(run.model),
            "steps": run.progress.step,
            "epochs": run.recipe.epochs,
            "seconds": round(run.progress.seconds),
            "pairs": len(task.train),
            "torch": version("torch"),
            "seq2edge": version("seq2edge"),
        },
    )
    files = {name: task.folder / name for name in {task.spec.source, task.spec.target}}
    write_checkpoint(output, info, weights, files, _sample(task))


def _sample(task: Task) -> list[tuple[str, str]]:
    """Dev sentences with all their references, for the export to be judged by."""
    sample = DevSet.from_corpus(task.dev_corpus, SAMPLE_SENTENCES, seed=0)
    pairs = zip(sample.sources, sample.references, strict=True)
    return [(source, one) for source, references in pairs for one in references]

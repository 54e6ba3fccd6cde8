"""Train a model by a recipe: resumable, seeded, judged by its score on the dev set.

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

from seq2edge.models.batches import epoch_batches, make_batch
from seq2edge.models.build import build_model, count_parameters
from seq2edge.models.checkpoint import (
    FORMAT,
    WEIGHTS,
    CheckpointInfo,
    distinct_weights,
    read_weights,
    save_weights,
    write_checkpoint,
)
from seq2edge.models.dev_set import dev_loss
from seq2edge.models.judge import dev_score
from seq2edge.models.network import Batch
from seq2edge.models.precision import WORTH_IT, bf16_speedup
from seq2edge.models.pretrained import fill_embedding
from seq2edge.models.recipe import Recipe
from seq2edge.models.sample import make_sample
from seq2edge.models.schedule import learning_rate
from seq2edge.models.task import Event, Report, Task, prepare
from seq2edge.models.tokenizer_training import source_pieces
from seq2edge.models.training_state import (
    Evaluation,
    Progress,
    load_state,
    save_state,
)
from seq2edge.runtime.options import SearchOptions

REPORT_EVERY = 20  # steps


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
        self.model = build_model(task.config, recipe.seed)
        self._fill_embedding()
        betas = (recipe.adam_betas[0], recipe.adam_betas[1])
        learned = [each for each in self.model.parameters() if each.requires_grad]
        # Fused is a third of the time of Adam's loop over the weights.
        self.adam = torch.optim.Adam(
            learned, recipe.learning_rate, betas=betas, eps=1e-9, fused=True
        )
        self.progress = Progress()
        self.score_name = f"dev_{task.metric}"
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
        """The mean of the last snapshots, of as many as give the highest dev score."""
        snapshots = [read_weights(path) for path in self._snapshots()]
        best: tuple[float, dict[str, Tensor], Event] | None = None
        for count in range(1, len(snapshots) + 1):
            weights = {
                name: torch.stack([s[name] for s in snapshots[-count:]]).mean(0).half()
                for name in snapshots[-1]
            }
            self._set_weights(weights)
            loss, score = self._judge()
            event = {"averaged": count, "dev_loss": loss, self.score_name: score}
            self.report({"event": "average", **event})
            if best is None or score > best[0]:
                best = (score, weights, event)
        assert best is not None  # the last step always evaluates
        return best[1], best[2]

    def _fill_embedding(self) -> None:
        task = self.task
        if task.recipe.embedding.file:
            assert task.spec is not None  # the recipe's own rules
            pieces = source_pieces(task.spec, task.folder)
            table = self.model.source_embedding
            recipe = task.recipe.embedding
            self.report(fill_embedding(table, pieces, recipe, task.data))

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
            loss = self.model.loss(batch, self.recipe.label_smoothing)
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
        loss, score = self._judge()
        stale = 0 if score > self.progress.best_score else self.progress.stale + 1
        self.progress = replace(
            self.progress,
            stale=stale,
            evaluations=(*self.progress.evaluations, Evaluation(step, loss, score)),
        )
        weights = distinct_weights(self.model, torch.float32)
        save_weights(weights, self.task.folder / f"snapshot-{step:08d}.safetensors")
        for path in self._snapshots()[: -self.recipe.average]:
            path.unlink()
        event = {"step": step, "dev_loss": loss, self.score_name: score}
        self.report({"event": "evaluation", **event})
        self._save()

    def _judge(self) -> tuple[float, float]:
        """Dev loss and dev score of the present weights."""
        self.model.eval()
        loss = dev_loss(self.model, self.task.dev, self.task.vocabulary)
        return round(loss, 4), round(dev_score(self.model, self.task), 2)

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
        return speedup > WORTH_IT

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
    search = SearchOptions(
        evaluation.recommended_beam_size, evaluation.recommended_length_penalty
    )
    info = CheckpointInfo(
        format=FORMAT,
        about=about,
        model=run.model.config,
        inputs=task.inputs,
        labels=task.labels,
        metric=task.metric,
        vocabulary=task.vocabulary,
        tokenizer=task.spec,
        limits=task.limits,
        search=search if task.config.writes else None,
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
    files = {name: task.folder / name for name in info.files - {WEIGHTS}}
    write_checkpoint(output, info, weights, files, make_sample(task))

"""Train a model by a recipe: resumable, seeded, judged by dev BLEU.

A run may be killed at any moment; the same command goes on from the last save. All that
is random follows from the seed and the saved generator, so that a resumed run makes the
same updates as one that was never stopped.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seq2edge.models.batches import (
    Batch,
    EncodedCorpus,
    encode_corpus,
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
    write_text,
)
from seq2edge.models.corpus import Corpus, read_corpus
from seq2edge.models.dev_set import DevSet, dev_loss
from seq2edge.models.precision import bf16_speedup
from seq2edge.models.recipe import Recipe, TrainingRecipe
from seq2edge.models.recurrent_model import (
    RecurrentModel,
    build_model,
    count_parameters,
)
from seq2edge.models.tokenizer_training import (
    load_tokenizer,
    target_vocabulary,
    train_tokenizer,
)
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.models.training_state import (
    Evaluation,
    Progress,
    load_state,
    save_state,
)
from seq2edge.runtime import schema
from seq2edge.runtime.bundle import Limits, SearchDefaults, TokenizerSpec
from seq2edge.runtime.errors import ConfigError, OutputError
from seq2edge.runtime.search import SearchOptions
from seq2edge.runtime.tokenizer import SentencePieceTokenizer
from seq2edge.runtime.translator import Translator
from seq2edge.runtime.vocabulary import Vocabulary

Event = dict[str, Any]
Report = Callable[[Event], None]

REPORT_EVERY = 20  # steps
SAMPLE_SENTENCES = 400  # of the dev set: fewer make BLEU too noisy a judge of int8
WORKSHOP = "training"  # the folder of a run's own files, inside the output


@dataclass(frozen=True)
class Task:
    """Everything that stays the same during a run."""

    recipe: Recipe
    folder: Path  # of the run's own files
    spec: TokenizerSpec
    tokenizer: SentencePieceTokenizer
    vocabulary: Vocabulary
    train: EncodedCorpus
    dev: EncodedCorpus
    dev_set: DevSet
    dev_corpus: Corpus


def train(recipe: Recipe, data_folder: Path, output: Path, report: Report) -> Path:
    """Train, or go on training, and write the checkpoint; returns its folder.

    `report` gets each event as a dict of plain values; data, model, resume, step,
    evaluation, saved and finished are the kinds.
    """
    task = _prepare(recipe, data_folder, output, report)
    run = _Run(task, report)
    run.resume()
    run.train()
    weights, chosen = run.best_weights()
    _write(task, run, weights, chosen, output)
    report({"event": "finished", "output": str(output), **chosen})
    return output


def learning_rate(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """The rate of update number `step` (from 0) of a run of `steps`."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    if recipe.decay == "inverse_sqrt":
        since = max(recipe.warmup_steps, 1)
        return recipe.learning_rate * math.sqrt(since / (step + 1))
    done = (step - recipe.warmup_steps) / max(steps - recipe.warmup_steps, 1)
    if recipe.decay == "cosine":
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return recipe.learning_rate * max(1 - done, 0.0)


def _open(output: Path) -> None:
    """Make the output folder, unless it holds something that isn't a run's."""
    if output.is_dir() and any(output.iterdir()) and not (output / WORKSHOP).is_dir():
        raise OutputError(
            f"{output} is not empty and holds no training run; give another --output"
        )
    try:
        (output / WORKSHOP).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{output} can't be written ({error.strerror}); give another --output"
        ) from None


def _prepare(recipe: Recipe, data: Path, output: Path, report: Report) -> Task:
    corpus = read_corpus(recipe.data.train, data)
    dev = read_corpus(recipe.data.dev, data)
    # Only now, so that a recipe that names no corpus can be mended and run again.
    folder = output / WORKSHOP
    _open(output)
    _remember(recipe, folder / "recipe.json")
    spec = train_tokenizer(recipe.tokenizer, corpus, folder)
    tokenizer = load_tokenizer(spec, folder)
    encoded, encoded_dev = (
        encode_corpus(
            part,
            tokenizer,
            recipe.data.max_tokens,
            recipe.data.max_ratio,
        )
        for part in (corpus, dev)
    )
    evaluation = recipe.evaluation
    dev_set = DevSet.from_corpus(dev, evaluation.max_sentences, recipe.training.seed)
    report(
        {
            "event": "data",
            "pairs": len(encoded),
            "left_out": dict(encoded.defects),
            "dev_pairs": len(encoded_dev),
            "dev_sentences": len(dev_set.sources),
        }
    )
    vocabulary = target_vocabulary(tokenizer)
    return Task(
        recipe, folder, spec, tokenizer, vocabulary, encoded, encoded_dev, dev_set, dev
    )


def _remember(recipe: Recipe, path: Path) -> None:
    """Refuse to go on with another recipe than the one that the run began with."""
    values = schema.to_json(recipe)
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in values if values[key] != before.get(key)]
        if changed:
            raise ConfigError(
                f"{path.parent} was begun with another recipe "
                f"([{'], ['.join(changed)}] differ); give another --output"
            )
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


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
            TorchStepper(self.model), task.vocabulary, _limits(task), task.tokenizer
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
        limits=_limits(task),
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


def _limits(task: Task) -> Limits:
    longest = task.recipe.data.max_tokens
    return Limits(source_tokens=longest, target_tokens=longest)


def _sample(task: Task) -> list[tuple[str, str]]:
    """Dev sentences with all their references, for the export to be judged by."""
    sample = DevSet.from_corpus(task.dev_corpus, SAMPLE_SENTENCES, seed=0)
    pairs = zip(sample.sources, sample.references, strict=True)
    return [(source, one) for source, references in pairs for one in references]

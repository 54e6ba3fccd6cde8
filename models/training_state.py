"""What a training run needs to go on after it was killed at any moment.

Each save is a new numbered folder, renamed into place when it is whole; only then is
the one before removed. Weights and Adam's moments are safetensors, the rest is JSON.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Adam

from seq2edge.models.checkpoint import read_weights, save_weights
from seq2edge.runtime import schema
from seq2edge.runtime.errors import CheckpointError

PREFIX = "state-"


@dataclass(frozen=True)
class Evaluation:
    """One look at the dev set; score is in per cent, by the task's metric."""

    step: int
    loss: float
    score: float


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `step` updates were made, `batch` of them in `epoch`."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    stale: int = 0  # evaluations since the best one
    seconds: float = 0.0
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def best_score(self) -> float:
        """The highest dev score so far, or below zero before the first."""
        return max((entry.score for entry in self.evaluations), default=-1.0)


def save_state(folder: Path, module: nn.Module, adam: Adam, progress: Progress) -> None:
    """Write the newest state, then drop the older ones."""
    final = folder / f"{PREFIX}{progress.step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    torch_state = {"random": torch.get_rng_state(), **_moments(module, adam)}
    save_weights(torch_state, temporary / "optimizer.safetensors")
    save_weights(dict(module.named_parameters()), temporary / "model.safetensors")
    text = json.dumps(schema.to_json(progress))
    (temporary / "progress.json").write_text(text, encoding="utf-8")
    older = _states(folder)
    if final in older:  # saved at this step already, e.g. at an epoch's end
        shutil.rmtree(temporary)
        return
    os.replace(temporary, final)
    for path in older:
        shutil.rmtree(path)


def load_state(folder: Path, module: nn.Module, adam: Adam) -> Progress | None:
    """Restore the newest state into module, optimizer and generator; None without."""
    states = _states(folder)
    if not states:
        return None
    newest = states[-1]
    moments = read_weights(newest / "optimizer.safetensors")
    weights = read_weights(newest / "model.safetensors")
    try:
        text = (newest / "progress.json").read_text(encoding="utf-8")
        progress = schema.parse(Progress, json.loads(text))
        torch.set_rng_state(moments.pop("random"))
        for name, weight in module.named_parameters():
            with torch.no_grad():
                weight.copy_(weights[name])
            if weight.requires_grad:
                adam.state[weight] = {
                    key: moments[f"{key}:{name}"]
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{newest} is damaged ({error}); remove it to begin anew"
        ) from None
    return progress


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


def _moments(module: nn.Module, adam: Adam) -> dict[str, Tensor]:
    return {
        f"{key}:{name}": value
        for name, weight in module.named_parameters()
        if weight.requires_grad
        for key, value in adam.state[weight].items()
    }

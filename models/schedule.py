"""The learning rate of every update: linear warm-up, then decay."""

import math

from seq2edge.models.recipe import TrainingRecipe


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

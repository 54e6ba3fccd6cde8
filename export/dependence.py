"""What a module's results depend on, and what they must not depend on.

Padding and the other rows of a batch must change nothing; every input, the token and
the source must change something. Judged in PyTorch, before anything is traced, so that
the message can name the tensor.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2edge.export.dummies import as_arrays, as_tensors
from seq2edge.export.examine import SMALL, Subject
from seq2edge.models.contract import Tensors
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.inputs import Example, collate, real_positions
from seq2edge.runtime.manifest import LOGITS, SEQUENCES, InputSpec

# Of a result, relative to its size: the order of sums changes with a batch.
TOLERANCE = 1e-4
STEPS = 2  # a decoder may read its first token without the source
PADDING = 3  # positions


@torch.no_grad()
def check_dependence(subject: Subject) -> None:
    """ExportError for the first rule that is broken."""
    if subject.attends:
        _check_attention(subject)
    _check_rows(subject)
    for spec in subject.dummies.inputs:
        _check_is_read(subject, spec)
    if subject.task == "generation":
        _check_token(subject)
        _check_source(subject)
    elif subject.encode(subject.dummies.tensors(*SMALL))[1]:
        _check_stream(subject)


def _check_rows(subject: Subject) -> None:
    """A row of a padded batch must come out as it does alone."""
    batch, length = SMALL
    rows = subject.dummies.examples(batch, length)
    _outcome(subject, rows[::-1])  # a batch comes in any order of lengths
    together = _outcome(subject, rows)
    for row, example in enumerate(rows):
        alone = _outcome(subject, [example])
        for name, tensor in alone.items():
            there = _region(together[name][row : row + 1], tensor)
            if (apart := _apart(tensor, there)) > TOLERANCE:
                raise ExportError(
                    f"{name} of a row alone and of the same row in a padded batch "
                    f"differ by {apart:.2g}: it depends on "
                    f"{_culprit(subject, rows, row, name)}"
                )


def _culprit(subject: Subject, rows: Sequence[Example], row: int, name: str) -> str:
    """The padding, if a row alone with padding shows it; else the other rows."""
    inputs = as_tensors(collate([rows[row]], subject.dummies.inputs))
    alone = _run(subject, inputs)[name]
    zeros, content = (
        _run(subject, _padded(subject, inputs, fill))[name] for fill in (False, True)
    )
    sizes = ", ".join(
        spec.lengths for spec in subject.dummies.inputs if spec.lengths is not None
    )
    apart = max(_apart(zeros, content), _apart(alone, _region(zeros, alone)))
    if apart > TOLERANCE:
        return (
            f"padding; use {sizes} (pack_padded_sequence, or a mask before a softmax, "
            "a sum or a mean)"
        )
    return (
        "the other rows of the batch; compute nothing across axis 0 (no batch "
        "normalisation in training mode, no mean over it)"
    )


def _padded(subject: Subject, inputs: Tensors, fill: bool) -> Tensors:
    """Longer sequences of the same lengths, padded with zeros or with content."""
    longer = dict(inputs)
    for spec in subject.dummies.inputs:
        if spec.lengths is None:
            continue
        padding = inputs[spec.name][:, :1].repeat_interleave(PADDING, 1)
        tensors = [inputs[spec.name], padding if fill else torch.zeros_like(padding)]
        longer[spec.name] = torch.cat(tensors, dim=1)
    return longer


def _outcome(subject: Subject, examples: Sequence[Example]) -> Tensors:
    return _run(subject, as_tensors(collate(examples, subject.dummies.inputs)))


def _run(subject: Subject, inputs: Tensors) -> Tensors:
    """All that may be compared between batches: state, outputs, and logits of steps.

    Memory isn't, for what it holds of padding is nobody's business but the step's.
    """
    results, state = subject.encode(inputs)
    found = {f"state {name!r}": tensor for name, tensor in state.items()}
    if subject.task != "generation":
        named = {f"output {name!r}": tensor for name, tensor in results.items()}
        return found | _within(named, inputs, subject)
    token = subject.tokens(inputs, state)
    for step in range(1, STEPS + 1):
        if subject.attends:
            logits, attention, state = subject.attended_step(token, results, state)
            shown = _real_first(subject, inputs, attention)
            found[f"the attention of step {step}"] = shown
        else:
            logits, state = subject.step(token, results, state)
        found[f"the logits of step {step}"] = logits
    return found


def _real_first(subject: Subject, inputs: Tensors, attention: Tensor) -> Tensor:
    """An attention with all padding moved to its end."""
    real = torch.from_numpy(real_positions(as_arrays(inputs), subject.dummies.inputs))
    order = (~real).to(torch.int8).argsort(dim=1, stable=True)
    return attention.gather(1, order)


def _within(named: Tensors, inputs: Tensors, subject: Subject) -> Tensors:
    """Outputs of a tagger, zero past the end of each sequence."""
    if subject.task != "tagging":
        return named
    [spec] = subject.dummies.inputs
    lengths = inputs[str(spec.lengths)]
    positions = torch.arange(inputs[spec.name].shape[1])
    inside = positions[None] < lengths[:, None]
    return {
        name: tensor * inside.reshape(*inside.shape, *[1] * (tensor.dim() - 2))
        for name, tensor in named.items()
    }


def _check_is_read(subject: Subject, spec: InputSpec) -> None:
    """Another content of an input must change something that `encode` returns."""
    inputs = subject.dummies.tensors(*SMALL)
    before = subject.encode(inputs)
    for changed in _others(subject, spec, inputs[spec.name]):
        if _differ(before, subject.encode({**inputs, spec.name: changed})):
            return
    if _varies(subject.dummies.pools[spec.name]):
        raise ExportError(
            f"nothing that encode returns depends on its input {spec.name!r}; use it, "
            "or take it out of the sample"
        )


def _others(subject: Subject, spec: InputSpec, tensor: Tensor) -> Iterator[Tensor]:
    """Other contents of the same shape, drawn from the sample."""
    batch, length = SMALL
    for offset in (1, 2, 5):
        rows = subject.dummies.examples(batch, length, offset)
        drawn = as_tensors(collate(rows, subject.dummies.inputs))[spec.name]
        yield drawn
    if spec.kind in SEQUENCES:
        yield tensor.flip(1)


def _check_token(subject: Subject) -> None:
    """Another token must change the logits, or the next state."""
    memory, state = subject.encode(subject.dummies.tensors(*SMALL))
    token = subject.tokens({}, state)
    logits, following = subject.step(token, memory, state)
    for other in {0, 1, subject.start + 1, logits.shape[1] - 1} - {subject.start}:
        if other >= logits.shape[1]:
            continue
        changed = torch.full_like(token, other)
        if _differ(
            ({LOGITS: logits}, following),
            _named(subject.step(changed, memory, state)),
        ):
            return
    raise ExportError(
        "neither the logits nor the next state of step depend on its token; "
        "embed it and use it"
    )


def _check_source(subject: Subject) -> None:
    """Another source must change the logits."""
    batch, length = SMALL
    if not any(_varies(pool) for pool in subject.dummies.pools.values()):
        return
    before = _outcome(subject, subject.dummies.examples(batch, length))
    for offset in (1, 2, 5):
        rows = subject.dummies.examples(batch, length, offset)
        after = _outcome(subject, rows)
        logits = [name for name in before if name.startswith("the logits")]
        if any(_apart(before[name], after[name]) > 0 for name in logits):
            return
    raise ExportError(
        f"the logits of the first {STEPS} steps do not depend on what encode reads; "
        "let step use its memory or its state"
    )


def _check_attention(subject: Subject) -> None:
    """It lies on real positions, sums to 1, and leaves the step as it is."""
    inputs = subject.dummies.tensors(*SMALL)
    memory, state = subject.encode(inputs)
    token = subject.tokens(inputs, state)
    logits, attention, following = subject.attended_step(token, memory, state)
    real = torch.from_numpy(real_positions(as_arrays(inputs), subject.dummies.inputs))
    if (on_padding := float((attention * ~real).abs().max())) > TOLERANCE:
        raise ExportError(
            f"the attention has {on_padding:.2g} on padding; mask it before its softmax"
        )
    least, sums = float(attention.min()), attention.sum(dim=1)
    if not least >= 0 or (sums - 1).abs().max() > TOLERANCE:
        raise ExportError(
            f"the attention's rows sum to {float(sums.min()):.4g} to "
            f"{float(sums.max()):.4g}, and its least value is {least:.2g}; give what a "
            "softmax over the positions gives"
        )
    expected = _named(subject.step(token, memory, state))
    found = {LOGITS: logits}, following
    for one, other in zip(expected, found, strict=True):
        _same_step(one, other)


def _same_step(expected: Tensors, found: Tensors) -> None:
    for name, tensor in expected.items():
        if name not in found or _apart(tensor, found[name]) > TOLERANCE:
            raise ExportError(
                f"{name} of step_with_attention is not what step gives; both must say "
                "the same"
            )


def _check_stream(subject: Subject) -> None:
    """Position by position, from zeros, a stream must say what the whole pass says."""
    inputs = as_tensors(
        collate(subject.dummies.examples(1, SMALL[1]), subject.dummies.inputs)
    )
    results, final = subject.encode(inputs)
    state = {name: torch.zeros_like(part) for name, part in final.items()}
    for position in range(SMALL[1]):
        token = subject.tokens(inputs, final, position)
        logits, state = subject.step(token, {}, state)
        apart = _apart(results[LOGITS][:, position], logits)
        if apart > TOLERANCE:
            raise ExportError(
                f"at position {position} step, from a state of zeros, differs from "
                f"encode by {apart:.2g}; a layer that reads backwards can't stream: "
                "return an empty state"
            )


def _varies(pool: NDArray[Any]) -> bool:
    """Whether the sample holds two different contents of an input."""
    return bool((pool != pool[0]).any())


def _named(result: tuple[Tensor, Tensors]) -> tuple[Tensors, Tensors]:
    return {LOGITS: result[0]}, result[1]


def _differ(one: tuple[Tensors, Tensors], other: tuple[Tensors, Tensors]) -> bool:
    return any(
        not torch.equal(first[name], second[name])
        for first, second in zip(one, other, strict=True)
        for name in first
    )


def _region(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a tensor that has the place and the size of another."""
    return tensor[tuple(slice(0, size) for size in like.shape)]


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative where values are above 1; inf if not finite."""
    if not one.numel():
        return 0.0
    one, other = one.double(), other.double()
    apart = (one - other).abs() / one.abs().clamp(min=1)
    return float(apart.nan_to_num(nan=torch.inf).max())

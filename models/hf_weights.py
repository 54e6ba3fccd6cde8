"""Weights of a Hugging Face encoder-decoder, put where our Transformer has them.

Queries, keys and values are one product here, their rows one after the other. Every
tensor of a file is used, or known to say again what another says, and then compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from seq2edge.models.checkpoint import CONFIG
from seq2edge.models.hf_folder import read_tensors
from seq2edge.models.transformer import Transformer
from seq2edge.models.transformer_config import TransformerConfig
from seq2edge.runtime.errors import CheckpointError

BIAS = "final_logits_bias"  # (1, vocabulary); zeros where a file has none
SHOWN = 5  # faults in a message

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_FEED_FORWARD = {
    "feed_forward.widen": ("fc1",),
    "feed_forward.narrow": ("fc2",),
    "around_feed_forward.norm": ("final_layer_norm",),
}
_LAYERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "encoder": {
        "attention.project": _ATTENTION,
        "attention.join": ("self_attn.out_proj",),
        "around_attention.norm": ("self_attn_layer_norm",),
        **_FEED_FORWARD,
    },
    "decoder": {
        "mixer.project": _ATTENTION,
        "mixer.join": ("self_attn.out_proj",),
        "around_mixer.norm": ("self_attn_layer_norm",),
        "cross.query": ("encoder_attn.q_proj",),
        "cross.project": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
        "cross.join": ("encoder_attn.out_proj",),
        "around_cross.norm": ("encoder_attn_layer_norm",),
        **_FEED_FORWARD,
    },
}

_SHARED, _HEAD = "model.shared.weight", "lm_head.weight"
_SOURCE = "model.encoder.embed_tokens.weight"
_TARGET = "model.decoder.embed_tokens.weight"
# By `tie`: the names under which a file may have each table, once or several times.
_TABLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "all": {"target_embedding": (_SHARED, _TARGET, _SOURCE, _HEAD)},
    "embeddings": {
        "target_embedding": (_SHARED, _TARGET, _SOURCE),
        "output.projection": (_HEAD,),
    },
    "output": {"source_embedding": (_SOURCE,), "target_embedding": (_TARGET, _HEAD)},
    "none": {
        "source_embedding": (_SOURCE,),
        "target_embedding": (_TARGET,),
        "output.projection": (_HEAD,),
    },
}


def load_weights(module: Transformer, files: Sequence[Path], has_bias: bool) -> None:
    """Fill the module, in float32; CheckpointError names what doesn't fit it.

    has_bias: whether a file may have `final_logits_bias`.
    """
    tensors = read_tensors(files)
    plan = dict(_plan(module.config))
    faults = [*_table_faults(module.config, tensors)]
    plan |= _chosen_tables(module.config, tensors)
    known = {name for names in plan.values() for name in names}
    known |= {name for names in _tables(module.config).values() for name in names}
    if has_bias and BIAS in tensors:
        plan["output.projection.bias"] = (BIAS,)
        known.add(BIAS)
    known |= {name for name, _ in _sinusoids(module)}
    faults += _name_faults(plan, known, tensors)
    faults += _shape_faults(module, plan, tensors)
    faults += _sinusoid_faults(module, tensors)
    if faults:
        shown = "; ".join(faults[:SHOWN]) + ("; ..." if len(faults) > SHOWN else "")
        raise CheckpointError(
            f"{files[0]} doesn't match its {CONFIG}: {shown}; copy both from the same "
            "model"
        )
    with torch.no_grad():
        parameters = dict(module.named_parameters())
        for ours, names in plan.items():
            parameters[ours].copy_(_joined(ours, [tensors[name] for name in names]))


def _plan(config: TransformerConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of our parameters but the tables, and the tensors that it joins."""
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    for side, layers in _LAYERS.items():
        for index in range(depths[side]):
            for ours, theirs in layers.items():
                layer = f"{side}.layers.{index}"
                yield from _affine(f"{layer}.{ours}", layer, theirs)
        if config.norm == "pre":
            yield from _affine(f"{side}.norm", side, ("layer_norm",))
        if config.embedding_norm:
            yield from _affine(f"{side}.embedding_norm", side, ("layernorm_embedding",))
        if config.positions == "learned":
            table = f"model.{side}.embed_positions.weight"
            yield f"{side}.positions.table", (table,)


def _affine(
    ours: str, place: str, theirs: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Weight and bias of a product or a norm."""
    for part in ("weight", "bias"):
        yield f"{ours}.{part}", tuple(f"model.{place}.{one}.{part}" for one in theirs)


def _tables(config: TransformerConfig) -> dict[str, tuple[str, ...]]:
    return {f"{ours}.weight": names for ours, names in _TABLES[config.tie].items()}


def _chosen_tables(
    config: TransformerConfig, tensors: Mapping[str, Tensor]
) -> dict[str, tuple[str, ...]]:
    """For each table the first of its names that the file has, or the usual one."""
    return {
        ours: (next((name for name in names if name in tensors), names[0]),)
        for ours, names in _tables(config).items()
    }


def _table_faults(
    config: TransformerConfig, tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """Tables that the configuration ties, and that differ."""
    for names in _tables(config).values():
        first, *others = [name for name in names if name in tensors] or [""]
        for other in others:
            one, another = tensors[first], tensors[other]
            if one.dtype != another.dtype or not torch.equal(one, another):
                yield f"{other} isn't equal to {first}, which it is tied to"


def _name_faults(
    plan: Mapping[str, Sequence[str]],
    known: set[str],
    tensors: Mapping[str, Tensor],
) -> Iterator[str]:
    wanted = {name for names in plan.values() for name in names}
    yield from (f"lacks {name}" for name in sorted(wanted - tensors.keys()))
    surplus = sorted(tensors.keys() - known)
    yield from (f"has {name}, which the configuration doesn't" for name in surplus)


def _shape_faults(
    module: Transformer,
    plan: Mapping[str, Sequence[str]],
    tensors: Mapping[str, Tensor],
) -> Iterator[str]:
    parameters = dict(module.named_parameters())
    for ours, names in plan.items():
        rows, *rest = parameters[ours].shape
        due = [1, rows] if names[0] == BIAS else [rows // len(names), *rest]
        for name in names:
            tensor = tensors.get(name)
            if tensor is None:
                continue
            if list(tensor.shape) != due:
                yield f"{name} is {list(tensor.shape)} where {due} is due"
            elif not tensor.is_floating_point():
                yield f"{name} is of {tensor.dtype}, where a float type is due"


def _joined(ours: str, tensors: Sequence[Tensor]) -> Tensor:
    """One tensor of several, their rows one after the other."""
    joined = torch.cat([tensor.float() for tensor in tensors])
    return joined.reshape(-1) if ours == "output.projection.bias" else joined


def _sinusoids(module: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Names under which a file may have positions that are computed, and those."""
    if module.config.positions == "learned":
        return
    for side, stack in (("encoder", module.encoder), ("decoder", module.decoder)):
        table = stack.positions.table
        assert isinstance(table, Tensor)
        yield f"model.{side}.embed_positions.weight", table  # Marian
        yield f"model.{side}.embed_positions.weights", table  # older M2M100


def _sinusoid_faults(
    module: Transformer, tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    offset = module.config.position_offset
    for name, table in _sinusoids(module):
        if name not in tensors:
            continue
        found = tensors[name]
        if found.shape != table.shape:
            yield f"{name} is {list(found.shape)} where {list(table.shape)} is due"
            continue
        difference = (found.float() - table).abs()[offset:].max()  # no token before it
        if not difference <= (1e-4 if found.dtype == torch.float32 else 1e-2):
            yield f"{name} isn't the table of sines and cosines that it is due to be"

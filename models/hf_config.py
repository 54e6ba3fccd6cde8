"""config.json of a Hugging Face encoder-decoder: what it means, or why it is refused.

Every key is known: it is read, or must have the one value that the computation stands
for, or changes nothing in decoding. Whatever else a configuration holds is refused, all
at once. A key that is left out has the default of its class in transformers 4.57.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from seq2edge.models.hf_families import FAMILIES, Family
from seq2edge.models.hf_generation_keys import KEYS as GENERATION_KEYS
from seq2edge.models.transformer_config import TransformerConfig
from seq2edge.runtime.errors import CheckpointError, ConfigError

ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}

_SIZES = (
    "vocab_size",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "max_position_embeddings",
)
_MOST_POSITIONS = 1 << 16  # a table of them is computed where the file has none
_TOKENS = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
_SWITCHES = ("scale_embedding", "share_encoder_decoder_embeddings")
# Types that one may expect here, and why they are none.
_NOT_YET = {
    "bart": "its tokenizer is a byte-level BPE, and seq2edge reads SentencePiece",
}

# Keys with the values that the computation stands for, whatever the family.
_FIXED: Mapping[str, tuple[object, ...]] = {
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "prefix": (None, "", " "),  # SentencePiece drops a space at the beginning
}
# Keys of training, bookkeeping and what transformers returns: they change no logits.
_HARMLESS = frozenset(
    {
        *("_attn_implementation_autoset", "_commit_hash", "_name_or_path"),
        *("_num_labels", "activation_dropout", "add_bias_logits", "architectures"),
        *("attention_dropout", "attn_implementation", "chunk_size_feed_forward"),
        *("classif_dropout", "classifier_dropout", "decoder_layerdrop", "dropout"),
        *("dtype", "encoder_layerdrop", "finetuning_task", "gradient_checkpointing"),
        *("id2label", "init_std", "label2id", "model_type", "name_or_path"),
        *("num_hidden_layers", "num_labels", "output_attentions", "output_past"),
        *("output_hidden_states", "problem_type", "return_dict", "save_step"),
        *("sep_token_id", "task_specific_params", "tf_legacy_loss"),
        *("tokenizer_class", "torch_dtype", "torchscript", "transformers_version"),
        *("use_bfloat16", "use_cache"),
    }
)


@dataclass(frozen=True)
class HfConfig:
    """config.json, checked."""

    model_type: str
    family: Family
    values: Mapping[str, object]  # with the defaults of what was left out
    model: TransformerConfig

    def token(self, key: str) -> int | None:
        """The id of a special token."""
        value = self.values[key]
        return value if type(value) is int else None


def read_config(file: Path, given: Mapping[str, object]) -> HfConfig:
    """What a config.json means; CheckpointError names every key that is refused."""
    model_type = given.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        reason = _NOT_YET.get(str(model_type))
        raise CheckpointError(
            f"{file}: model_type {model_type!r} isn't supported"
            f"{f' ({reason})' if reason else ''}; use a model of type "
            f"{', '.join(FAMILIES)}"
        )
    values = {**family.defaults, **given}
    faults = [*_faults(family, given, values)]
    if faults:
        raise CheckpointError(
            f"{file}: {'; '.join(faults)}; export a model without these, see "
            "docs/hugging-face.md"
        )
    try:
        model = _model(family, values)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}; copy it again") from None
    assert isinstance(model_type, str)
    return HfConfig(model_type, family, values, model)


def _faults(
    family: Family, given: Mapping[str, object], values: Mapping[str, object]
) -> Iterator[str]:
    """Every key whose value can't be had, and every key that nobody knows."""
    architectures = given.get("architectures")
    if architectures not in (None, [family.architecture]):
        yield (
            f"architectures = {architectures!r} isn't supported, "
            f"{family.architecture} is"
        )
    fixed = {**_FIXED, **family.fixed}
    for key, accepted in fixed.items():
        if key in given and given[key] not in accepted:
            yield f"{key} = {given[key]!r} isn't supported, {accepted[0]!r} is"
    yield from _type_faults(values)
    if (name := values["activation_function"]) not in ACTIVATIONS:
        yield (
            f"activation_function = {name!r} isn't supported; "
            f"known are {', '.join(ACTIVATIONS)}"
        )
    known = fixed.keys() | family.defaults.keys() | _HARMLESS | GENERATION_KEYS
    for key in sorted(given.keys() - known - family.harmless):
        yield (
            f"{key} = {given[key]!r} is a key that seq2edge doesn't know, and it may "
            "change what the model computes"
        )


def _type_faults(values: Mapping[str, object]) -> Iterator[str]:
    for key in _SIZES:
        value = values[key]
        if type(value) is not int or value < 1:
            yield f"{key} = {value!r} must be an integer of at least 1"
    most = values["max_position_embeddings"]
    if type(most) is int and most > _MOST_POSITIONS:
        yield f"max_position_embeddings = {most} must be at most {_MOST_POSITIONS}"
    for key in (*_SWITCHES, "tie_word_embeddings"):
        if type(values[key]) is not bool:
            yield f"{key} = {values[key]!r} must be true or false"
    size = values["decoder_vocab_size"]
    if size is not None and (type(size) is not int or size < 1):
        yield f"decoder_vocab_size = {size!r} must be an integer of at least 1"
    for key in _TOKENS:
        value = values[key]
        if value is not None and (type(value) is not int or value < 0):
            yield f"{key} = {value!r} must be an integer of at least 0"
    if values["pad_token_id"] is None:
        yield "pad_token_id is missing"


def _model(family: Family, values: Mapping[str, object]) -> TransformerConfig:
    def integer(key: str) -> int:
        value = values[key]
        assert isinstance(value, int)
        return value

    shares = family.shares or bool(values["share_encoder_decoder_embeddings"])
    ties = {
        (True, True): "all",
        (True, False): "embeddings",
        (False, True): "output",
        (False, False): "none",
    }
    source = integer("vocab_size")
    target = source if shares else values["decoder_vocab_size"] or source
    assert isinstance(target, int)
    return TransformerConfig(
        source_vocabulary=source,
        target_vocabulary=target,
        size=integer("d_model"),
        encoder_layers=integer("encoder_layers"),
        decoder_layers=integer("decoder_layers"),
        encoder_heads=integer("encoder_attention_heads"),
        decoder_heads=integer("decoder_attention_heads"),
        encoder_feed_forward=integer("encoder_ffn_dim"),
        decoder_feed_forward=integer("decoder_ffn_dim"),
        norm=family.norm,
        activation=ACTIVATIONS[str(values["activation_function"])],
        positions=family.positions,
        position_offset=family.offset(integer("pad_token_id")),
        max_positions=integer("max_position_embeddings"),
        scale_embeddings=bool(values["scale_embedding"]),
        embedding_norm=family.embedding_norm,
        tie=ties[shares, bool(values["tie_word_embeddings"])],
        dropout=0.0,
    )

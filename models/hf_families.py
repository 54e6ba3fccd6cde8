"""What the models of each model_type of transformers have in common.

A key that a configuration leaves out has the default of its class in transformers 4.57.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_COMMON_DEFAULTS: Mapping[str, object] = {
    "max_position_embeddings": 1024,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "d_model": 1024,
    "tie_word_embeddings": True,
    "share_encoder_decoder_embeddings": True,
    "decoder_vocab_size": None,
    "bos_token_id": None,
}
_FAIRSEQ_DEFAULTS: Mapping[str, object] = {
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True)
class Family:
    """What the models of one model_type have in common."""

    architecture: str  # the class whose weights are read
    defaults: Mapping[str, object]
    fixed: Mapping[str, tuple[object, ...]]
    norm: str
    positions: str
    has_bias: bool  # final_logits_bias
    embedding_norm: bool = False
    shares: bool = True  # always one table for source and target
    harmless: frozenset[str] = field(default_factory=frozenset)

    def offset(self, padding: int) -> int:
        """The row of the first position."""
        return {
            "sinusoidal": 0,
            "sinusoidal_shifted": padding + 1,
            "learned": 2,
        }[self.positions]


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "marian": Family(
            architecture="MarianMTModel",
            defaults={
                **_COMMON_DEFAULTS,
                "vocab_size": 58101,
                "activation_function": "gelu",
                "scale_embedding": False,
                "pad_token_id": 58100,
                "eos_token_id": 0,
                "decoder_start_token_id": 58100,
            },
            fixed={
                "normalize_before": (False,),
                "normalize_embedding": (False,),
                "add_final_layer_norm": (False,),
                "static_position_embeddings": (True,),
            },
            norm="post",
            positions="sinusoidal",
            has_bias=True,
            shares=False,
            harmless=frozenset({"extra_pos_embeddings"}),
        ),
        "m2m_100": Family(
            architecture="M2M100ForConditionalGeneration",
            defaults={
                **_COMMON_DEFAULTS,
                **_FAIRSEQ_DEFAULTS,
                "vocab_size": 128112,
                "activation_function": "relu",
                "scale_embedding": True,
                "decoder_start_token_id": 2,
            },
            fixed={},
            norm="pre",
            positions="sinusoidal_shifted",
            has_bias=False,
        ),
        "mbart": Family(
            architecture="MBartForConditionalGeneration",
            defaults={
                **_COMMON_DEFAULTS,
                **_FAIRSEQ_DEFAULTS,
                "vocab_size": 50265,
                "activation_function": "gelu",
                "scale_embedding": False,
                "decoder_start_token_id": None,
                "forced_eos_token_id": 2,
            },
            fixed={
                "normalize_before": (True,),
                "normalize_embedding": (True,),
                "add_final_layer_norm": (True,),
                "static_position_embeddings": (False,),
            },
            norm="pre",
            positions="learned",
            has_bias=True,
            embedding_norm=True,
        ),
    }
)

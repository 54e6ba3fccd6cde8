"""What a model is made of: the configuration of one of the architectures."""

from typing import TypeAlias

from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.transformer_config import TransformerConfig

ModelConfig: TypeAlias = RecurrentConfig | TransformerConfig

ARCHITECTURES: dict[str, type[RecurrentConfig] | type[TransformerConfig]] = {
    "recurrent": RecurrentConfig,
    "transformer": TransformerConfig,
}

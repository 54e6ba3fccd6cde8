"""One label for all that was read (N to 1, or one vector to one)."""

from torch import Tensor, nn

from seq2edge.models.contract import Tensors
from seq2edge.models.dropout import LockedDropout
from seq2edge.models.labels import label_loss
from seq2edge.models.network import Batch
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.recurrent_network import RecurrentNetwork
from seq2edge.models.summary import Bridge
from seq2edge.runtime.manifest import LOGITS


class Classifier(RecurrentNetwork):
    """Built from a RecurrentConfig whose task is classification.

    Its summary is read by the output layer; mapped or summed it has embedding_size
    features.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        """Random weights; `Checkpoint.load` fills them."""
        super().__init__(config)
        mapped = config.summary != "last"
        size = config.embedding_size if mapped else config.joined_size
        self.bridge = Bridge(config.joined_size, size) if mapped else nn.Identity()
        self.output = nn.Linear(size, config.labels)
        self.dropout = LockedDropout(config.dropout)

    def encode(self, **inputs: Tensor) -> tuple[Tensors, Tensors]:
        """logits (batch, labels), and no state."""
        _, vector = self.read(inputs)
        return {LOGITS: self.output(self.dropout(self.bridge(vector)))}, {}

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy in nats of the labels that are known."""
        outputs, _ = self.encode(**batch.inputs)
        return label_loss(outputs[LOGITS], batch.expected, label_smoothing)

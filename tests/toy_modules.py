"""Encoder-decoders as strangers write them: what the export must take as it is."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2edge.export.dummies import Dummies
from seq2edge.export.examine import Subject
from seq2edge.export.sample import Sample
from seq2edge.runtime.inputs import SOURCE

Named = dict[str, Tensor]
VOCABULARY = 50
START, END = 1, 2


class AttentiveGru(nn.Module):
    """Packed bidirectional GRU, GRUCell with dot attention, tied output layer."""

    def __init__(self, layers: int = 2, width: int = 12) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.rnn = nn.GRU(
            width, 10, layers, batch_first=True, bidirectional=True, dropout=0.1
        )
        self.key = nn.Linear(20, 14)
        self.cell = nn.GRUCell(width, 14)
        self.read = nn.Linear(14 + 20, width)

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        packed = pack_padded_sequence(
            self.embedding(source),
            source_lengths.cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        outputs, final = self.rnn(packed)
        values, _ = pad_packed_sequence(
            outputs, batch_first=True, total_length=source.shape[1]
        )
        positions = torch.arange(source.shape[1])
        mask = (positions >= source_lengths[:, None]) * -1e9
        hidden = torch.tanh(self.key(torch.cat([final[-2], final[-1]], dim=-1)))
        memory = {"values": values, "keys": self.key(values), "mask": mask.float()}
        return memory, {"hidden": hidden}

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        logits, _, following = self.look(token, memory, state)
        return logits, following

    def look(
        self, token: Tensor, memory: Named, state: Named
    ) -> tuple[Tensor, Tensor, Named]:
        hidden = self.cell(self.embedding(token), state["hidden"])
        batch = memory["keys"].shape[0]
        query = hidden.reshape(batch, -1, hidden.shape[-1])
        energies = query @ memory["keys"].transpose(1, 2) + memory["mask"][:, None]
        weights = energies.softmax(-1)
        context = (weights @ memory["values"]).reshape(-1, 20)
        read = torch.tanh(self.read(torch.cat([hidden, context], dim=-1)))
        return read @ self.embedding.weight.T, weights, {"hidden": hidden}


class AligningGru(AttentiveGru):
    """The same, and it shows where it looked."""

    def step_with_attention(
        self, token: Tensor, memory: Named, state: Named
    ) -> tuple[Tensor, Tensor, Named]:
        logits, weights, following = self.look(token, memory, state)
        return logits, weights.flatten(0, 1), following


class PlainLstm(nn.Module):
    """LSTM to LSTM without attention; the decoder runs nn.LSTM over one step."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Embedding(VOCABULARY, 8)
        self.target = nn.Embedding(VOCABULARY, 6)
        self.encoder = nn.LSTM(8, 12, num_layers=2)
        self.decoder = nn.LSTM(6, 12, num_layers=2, batch_first=True)
        self.output = nn.Linear(12, VOCABULARY)

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        embedded = self.source(source).transpose(0, 1)
        packed = pack_padded_sequence(
            embedded, source_lengths.cpu(), enforce_sorted=False
        )
        _, (hidden, cell) = self.encoder(packed)
        state = {"hidden": hidden.transpose(0, 1), "cell": cell.transpose(0, 1)}
        return {}, state

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        before = tuple(
            state[name].transpose(0, 1).contiguous() for name in ("hidden", "cell")
        )
        embedded = self.target(token).unsqueeze(1)
        outputs, (hidden, cell) = self.decoder(embedded, before)
        following = {"hidden": hidden.transpose(0, 1), "cell": cell.transpose(0, 1)}
        return self.output(outputs[:, 0]), following


class ElmanContext(nn.Module):
    """Elman network with ReLU and without biases; its context enters every step."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.encoder = nn.RNN(
            8, 9, nonlinearity="relu", bias=False, bidirectional=True, batch_first=True
        )
        self.cell = nn.RNNCell(8 + 18, 16)
        self.output = nn.Linear(16, VOCABULARY, bias=False)

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        packed = pack_padded_sequence(
            self.embedding(source), source_lengths.cpu(), True, False
        )
        _, final = self.encoder(packed)
        context = torch.cat([final[0], final[1]], dim=-1)
        hidden = context.new_zeros(context.shape[0], 16)
        return {"context": context}, {"hidden": hidden}

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        batch = memory["context"].shape[0]
        beam = token.shape[0] // batch
        context = memory["context"][:, None].expand(-1, beam, -1).reshape(-1, 18)
        inputs = torch.cat([self.embedding(token), context], dim=-1)
        hidden = self.cell(inputs, state["hidden"])
        return self.output(hidden), {"hidden": hidden}


def subject(module: Any, sentences: Sequence[Sequence[int]], start: int) -> Subject:
    """A module that reads one sequence of tokens, ready to be examined."""
    sample = Sample.of_ids(sentences)
    return Subject(module, "generation", Dummies.of(sample.examples, [SOURCE]), start)


TOYS = (AttentiveGru, PlainLstm, ElmanContext)


def build(kind: Any, seed: int = 0) -> Any:
    """A toy in eval mode with seeded weights, large enough to say various things."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = kind()
        with torch.no_grad():
            for weight in module.parameters():
                weight.mul_(2.0)
    return module.eval()

"""Bring your own model: a GRU reads both ways, another attends to what it read.

Bahdanau, Cho and Bengio 2014, arXiv:1409.0473: additive attention over packed, masked
sequences. Usage:

    python examples/bring_your_own/attention_gru.py OUT
"""

import sys
from pathlib import Path

import reversed_digits as task
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2edge.export import (
    ExportOptions,
    Limits,
    ModelSpec,
    Sample,
    Vocabulary,
    export_model,
)

LONGEST = 8


class Encoder(nn.Module):
    def __init__(self, vocabulary, embedding_size, hidden_size):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        self.gru = nn.GRU(
            embedding_size, hidden_size, batch_first=True, bidirectional=True
        )
        self.bridge = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, source, lengths):
        packed = pack_padded_sequence(
            self.embedding(source),
            lengths.cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        outputs, hidden = self.gru(packed)
        outputs, _ = pad_packed_sequence(
            outputs, batch_first=True, total_length=source.shape[1]
        )
        both = torch.cat([hidden[-2], hidden[-1]], dim=1)  # forward and backward
        return outputs, torch.tanh(self.bridge(both))


class Attention(nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.attn = nn.Linear(3 * hidden_size, hidden_size)
        self.v = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, hidden, outputs, mask):
        repeated = hidden.unsqueeze(1).repeat(1, outputs.shape[1], 1)
        energy = torch.tanh(self.attn(torch.cat([repeated, outputs], dim=2)))
        scores = self.v(energy).squeeze(2)  # (batch, time)
        return functional.softmax(scores.masked_fill(~mask, -1e10), dim=1)


class Decoder(nn.Module):
    def __init__(self, vocabulary, embedding_size, hidden_size):
        super().__init__()
        self.attention = Attention(hidden_size)
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        self.gru = nn.GRU(
            embedding_size + 2 * hidden_size, hidden_size, batch_first=True
        )
        self.fc_out = nn.Linear(embedding_size + 3 * hidden_size, vocabulary)

    def forward(self, token, hidden, outputs, mask):
        embedded = self.embedding(token).unsqueeze(1)  # (batch, 1, embedding)
        weights = self.attention(hidden, outputs, mask).unsqueeze(1)
        context = torch.bmm(weights, outputs)  # (batch, 1, 2 * hidden)
        _, hidden = self.gru(torch.cat([embedded, context], 2), hidden.unsqueeze(0))
        hidden = hidden.squeeze(0)
        seen = torch.cat([embedded.squeeze(1), hidden, context.squeeze(1)], dim=1)
        return self.fc_out(seen), hidden


class Seq2Seq(nn.Module):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def mask(self, source, lengths):
        return torch.arange(source.shape[1]) < lengths.unsqueeze(1)  # (batch, time)

    def forward(self, source, lengths, target):
        """Teacher forcing: the decoder reads the target, one token behind."""
        outputs, hidden = self.encoder(source, lengths)
        mask, results = self.mask(source, lengths), []
        for position in range(target.shape[1] - 1):
            token = target[:, position]
            logits, hidden = self.decoder(token, hidden, outputs, mask)
            results.append(logits)
        return torch.stack(results, dim=1)  # (batch, time - 1, vocabulary)

    @torch.no_grad()
    def answer(self, found, max_length=20):
        """Greedy decoding of a list of id lists."""
        self.eval()
        source, lengths = task.padded(found), task.lengths(found)
        outputs, hidden = self.encoder(source, lengths)
        mask, tokens = self.mask(source, lengths), []
        token = torch.full((len(found),), task.START)
        for _ in range(max_length):
            logits, hidden = self.decoder(token, hidden, outputs, mask)
            token = logits.argmax(dim=-1)
            tokens.append(token)
        return task.until_end(torch.stack(tokens, dim=1).tolist())


def train(found, steps=150):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = (task.VOCABULARY, 16, 64)
    model = Seq2Seq(Encoder(*sizes), Decoder(*sizes))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, steps)
    criterion = nn.CrossEntropyLoss(ignore_index=task.PAD)
    for source, lengths, target in task.batches(found, 64, steps):
        logits = model(source, lengths, target)
        loss = criterion(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


# --- the export, all of it but its imports ---
class Exportable(Seq2Seq):
    def encode(self, source, source_lengths):
        outputs, hidden = self.encoder(source, source_lengths)
        mask = self.mask(source, source_lengths)
        return {"outputs": outputs, "mask": mask}, {"hidden": hidden}

    def step(self, token, memory, state):
        beam = token.shape[0] // memory["mask"].shape[0]  # rows of a sentence
        seen = [memory[name].repeat_interleave(beam, 0) for name in ("outputs", "mask")]
        logits, hidden = self.decoder(token, state["hidden"], *seen)
        return logits, {"hidden": hidden}


def export(model, found, output, precision):
    module, sample = Exportable(model.encoder, model.decoder), Sample.of_ids(found)
    vocabulary = Vocabulary(task.VOCABULARY, pad=0, unknown=0, start=1, end=2)
    spec = ModelSpec("attention-gru", vocabulary, Limits(20, 20))
    export_model(module, sample, output, spec, ExportOptions(precision=precision))


# --- the end of the export ---


def main(output):
    training, held_out = task.split(LONGEST)
    model = train(training)
    for precision in ("fp32", "int8"):
        export(model, training[:200], output / precision, precision)
    task.report(model.answer, output, held_out)
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Bring your own model: a GRU sums the source up, another sees the sum at every step.

Cho et al. 2014, arXiv:1406.1078. Usage:

    python examples/bring_your_own/gru_context.py OUT
"""

import sys
from pathlib import Path

import reversed_digits as task
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from seq2edge.export import (
    ExportOptions,
    Limits,
    ModelSpec,
    Sample,
    Vocabulary,
    export_model,
)

LONGEST = 5


class Encoder(nn.Module):
    def __init__(self, vocabulary, embedding_size, hidden_size):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        self.gru = nn.GRU(embedding_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(0.05)

    def forward(self, source, lengths):
        packed = pack_padded_sequence(
            self.dropout(self.embedding(source)),
            lengths.cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        return self.gru(packed)[1]  # the context, (1, batch, hidden)


class Decoder(nn.Module):
    def __init__(self, vocabulary, embedding_size, hidden_size):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        self.gru = nn.GRU(embedding_size + hidden_size, hidden_size)
        self.fc_out = nn.Linear(embedding_size + 2 * hidden_size, vocabulary)

    def forward(self, token, hidden, context):
        embedded = self.embedding(token).unsqueeze(0)  # (1, batch, embedding)
        _, hidden = self.gru(torch.cat([embedded, context], dim=2), hidden)
        seen = torch.cat([embedded, hidden, context], dim=2).squeeze(0)
        return self.fc_out(seen), hidden  # hidden (1, batch, hidden)


class Seq2Seq(nn.Module):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, source, lengths, target):
        """Teacher forcing: the decoder reads the target, one token behind."""
        context = self.encoder(source, lengths)
        hidden, outputs = context, []
        for position in range(target.shape[1] - 1):
            logits, hidden = self.decoder(target[:, position], hidden, context)
            outputs.append(logits)
        return torch.stack(outputs, dim=1)  # (batch, time - 1, vocabulary)

    @torch.no_grad()
    def answer(self, found, max_length=20):
        """Greedy decoding of a list of id lists."""
        self.eval()
        context = self.encoder(task.padded(found), task.lengths(found))
        hidden, token = context, torch.full((len(found),), task.START)
        tokens = []
        for _ in range(max_length):
            logits, hidden = self.decoder(token, hidden, context)
            token = logits.argmax(dim=-1)
            tokens.append(token)
        return task.until_end(torch.stack(tokens, dim=1).tolist())


def train(found, steps=300):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = (task.VOCABULARY, 16, 128)
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
        context = self.encoder(source, source_lengths).squeeze(0)
        return {"context": context}, {"hidden": context}

    def step(self, token, memory, state):
        beam = token.shape[0] // memory["context"].shape[0]  # rows of a sentence
        context = memory["context"].repeat_interleave(beam, dim=0)[None]
        logits, hidden = self.decoder(token, state["hidden"][None], context)
        return logits, {"hidden": hidden.squeeze(0)}


def export(model, found, output, precision):
    module, sample = Exportable(model.encoder, model.decoder), Sample.of_ids(found)
    vocabulary = Vocabulary(task.VOCABULARY, pad=0, unknown=0, start=1, end=2)
    spec = ModelSpec("gru-context", vocabulary, Limits(20, 20))
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

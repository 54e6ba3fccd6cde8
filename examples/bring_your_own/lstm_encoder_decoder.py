"""Bring your own model: an LSTM reads, its last state is all that an LSTM writes from.

Sutskever, Vinyals and Le 2014, arXiv:1409.3215. Usage:

    python examples/bring_your_own/lstm_encoder_decoder.py OUT
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
    def __init__(self, vocabulary, embedding_size, hidden_size, num_layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size, num_layers)

    def forward(self, source, lengths):
        embedded = self.embedding(source.t())  # (time, batch, embedding)
        packed = pack_padded_sequence(embedded, lengths.tolist(), enforce_sorted=False)
        _, (hidden, cell) = self.lstm(packed)
        return hidden, cell  # each (layers, batch, hidden)


class Decoder(nn.Module):
    def __init__(self, vocabulary, embedding_size, hidden_size, num_layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size, num_layers)
        self.fc_out = nn.Linear(hidden_size, vocabulary)

    def forward(self, token, hidden, cell):
        embedded = self.embedding(token).unsqueeze(0)  # (1, batch, embedding)
        output, (hidden, cell) = self.lstm(embedded, (hidden, cell))
        return self.fc_out(output.squeeze(0)), hidden, cell


class Seq2Seq(nn.Module):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, source, lengths, target):
        """Teacher forcing: the decoder reads the target, one token behind."""
        hidden, cell = self.encoder(source, lengths)
        outputs = []
        for token in target[:, :-1].t():
            logits, hidden, cell = self.decoder(token, hidden, cell)
            outputs.append(logits)
        return torch.stack(outputs, dim=1)  # (batch, time - 1, vocabulary)

    @torch.no_grad()
    def answer(self, found, max_length=20):
        """Greedy decoding of a list of id lists."""
        self.eval()
        hidden, cell = self.encoder(task.padded(found), task.lengths(found))
        token = torch.full((len(found),), task.START)
        tokens = []
        for _ in range(max_length):
            logits, hidden, cell = self.decoder(token, hidden, cell)
            token = logits.argmax(dim=-1)
            tokens.append(token)
        return task.until_end(torch.stack(tokens, dim=1).tolist())


def train(found, steps=300):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = (task.VOCABULARY, 16, 128, 1)
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
        hidden, cell = self.encoder(source, source_lengths)
        return {}, {"hidden": hidden.transpose(0, 1), "cell": cell.transpose(0, 1)}

    def step(self, token, memory, state):
        before = [state[name].transpose(0, 1) for name in ("hidden", "cell")]
        logits, hidden, cell = self.decoder(token, *before)
        return logits, {"hidden": hidden.transpose(0, 1), "cell": cell.transpose(0, 1)}


def export(model, found, output, precision):
    module, sample = Exportable(model.encoder, model.decoder), Sample.of_ids(found)
    vocabulary = Vocabulary(task.VOCABULARY, pad=0, unknown=0, start=1, end=2)
    spec = ModelSpec("lstm-encoder-decoder", vocabulary, Limits(20, 20))
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

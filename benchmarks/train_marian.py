"""Train a small MarianMT with transformers: a checkpoint that means something.

    python benchmarks/train_marian.py CORPORA out/marian

CORPORA holds train.tsv and dev.tsv, source TAB target. The folder written is what a
model hub would give: config.json, model.safetensors, source.spm, target.spm,
vocab.json, generation_config.json, and sample.tsv for the export to judge by. A run
that was stopped goes on from its last save when started again. The model that
docs/benchmarks.md compares is of the size of Firefox's students:

    python benchmarks/train_marian.py CORPORA out/marian-student --size 256 \
        --encoder-layers 6 --heads 8 --pieces 4200 --peak 1e-3 --epochs 2
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from marian_folder import marian_config, write_model, write_tokenizer
from torch import Tensor
from transformers import MarianMTModel

from seq2edge.models.precision import WORTH_IT, bf16_speedup
from seq2edge.models.training_state import Progress, load_state, save_state

BATCH_TOKENS, WARMUP, PEAK = 2500, 500, 2e-3
SAMPLE = 400
Pair = tuple[list[int], list[int]]


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Source and target of every line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines]
    return [(source, target) for source, target, *_ in pairs]


def epoch_batches(pairs: Sequence[Pair], seed: int) -> list[list[Pair]]:
    """Pairs of about equal lengths together, the batches shuffled."""
    draw = random.Random(seed)
    order = sorted(pairs, key=lambda pair: (len(pair[0]), len(pair[1]), draw.random()))
    batches: list[list[Pair]] = [[]]
    for pair in order:
        longest = max(len(pair[0]), len(pair[1]), *map(len, batches[-1][-1:] or [[]]))
        if batches[-1] and longest * (len(batches[-1]) + 1) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(pair)
    draw.shuffle(batches)
    return batches


def padded(rows: Sequence[list[int]], pad: int) -> Tensor:
    """Ids as a tensor (batch, time)."""
    longest = max(map(len, rows))
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


def loss_of(model: Any, batch: Sequence[Pair], pad: int, bf16: bool) -> Tensor:
    """Mean cross entropy in nats, smoothed by 0.1.

    bf16: whether the model's products are of bf16.
    """
    sources = padded([source for source, _ in batch], pad)
    targets = padded([target for _, target in batch], pad)
    start = torch.full((len(batch), 1), model.config.decoder_start_token_id)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(
            input_ids=sources,
            attention_mask=(sources != pad).long(),
            decoder_input_ids=torch.cat([start, targets[:, :-1]], dim=1),
        ).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1),
        targets.flatten(),
        ignore_index=pad,
        label_smoothing=0.1,
    )


def train(
    model: Any, pairs: Sequence[Pair], epochs: int, state: Path, peak: float = PEAK
) -> None:
    """Adam with warm-up and linear decay, resumable."""
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)
    pad = model.config.pad_token_id
    steps = epochs * len(epoch_batches(pairs, 0))
    warmup = min(WARMUP, steps // 5)
    progress = load_state(state, model, adam) or Progress()
    model.train()
    start_from_zero(model)
    bf16 = bf16_speedup() > WORTH_IT
    began = time.monotonic()
    for step, batch in enumerate(_stream(pairs, epochs)):
        if step < progress.step:
            continue
        for group in adam.param_groups:
            group["lr"] = peak * min((step + 1) / warmup, (steps - step) / steps)
        adam.zero_grad()
        loss = loss_of(model, batch, pad, bf16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        start_from_zero(model)
        if step % 100 == 99:
            seconds = time.monotonic() - began
            print(f"{step + 1}/{steps} {float(loss):.3f} {seconds:.0f} s", flush=True)
            save_state(state, model, adam, Progress(step=step + 1))


@torch.no_grad()
def start_from_zero(model: Any) -> None:
    """Padding begins a target, and is a vector of zeros, as in Marian's own models."""
    for table in (model.get_encoder().embed_tokens, model.get_decoder().embed_tokens):
        table.weight[model.config.pad_token_id].zero_()


def _stream(pairs: Sequence[Pair], epochs: int) -> Iterator[list[Pair]]:
    for epoch in range(epochs):
        yield from epoch_batches(pairs, epoch)


def main() -> None:
    """Tokenizer, training, folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--encoder-layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--pieces", type=int, default=3000, help="of each side")
    parser.add_argument("--peak", type=float, default=PEAK, help="learning rate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    folder: Path = arguments.folder
    texts = read_pairs(arguments.corpora / "train.tsv")
    sources, targets = [s for s, _ in texts], [t for _, t in texts]
    tokenizer = write_tokenizer(folder, sources, targets, (arguments.pieces,) * 2)
    size = arguments.size
    config = marian_config(
        folder,
        d_model=size,
        encoder_layers=arguments.encoder_layers,
        decoder_layers=2,
        encoder_attention_heads=arguments.heads,
        decoder_attention_heads=arguments.heads,
        encoder_ffn_dim=4 * size,
        decoder_ffn_dim=4 * size,
    )
    model = MarianMTModel(config)
    pairs = [
        (tokenizer(source)["input_ids"], tokenizer(text_target=target)["input_ids"])
        for source, target in texts
    ]
    pairs = [pair for pair in pairs if max(map(len, pair)) <= 64]
    train(model, pairs, arguments.epochs, folder / "training", arguments.peak)
    write_model(folder, model)
    dev = read_pairs(arguments.corpora / "dev.tsv")
    chosen = random.Random(1).sample(dev, SAMPLE)
    text = "".join(f"{source}\t{target}\n" for source, target in chosen)
    (folder / "sample.tsv").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

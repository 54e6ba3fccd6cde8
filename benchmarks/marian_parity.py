"""MarianMT checkpoints through this exporter, transformers and CTranslate2.

Do they give the same tokens?

    python benchmarks/marian_parity.py CORPORA WORK [FOLDER]...

makes six checkpoints of different configurations in WORK, each taught for some hundred
updates on CORPORA (train.tsv, source TAB target; a random one repeats one token for
ever), and compares them, and every further FOLDER, on 200 sentences of dev.tsv: greedy
and with a beam of 4, all at once and one by one. Prints a Markdown table.
"""

import argparse
import random
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from marian_folder import marian_config, write_model, write_tokenizer
from train_marian import Pair, read_pairs, train
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianMTModel

from seq2edge.export import ExportOptions, export_checkpoint
from seq2edge.models.loading import load_checkpoint
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.runtime import Hypothesis, Translator

SENTENCES, TAUGHT = 200, 12000
MAX_LENGTH = 64  # with the start token, as transformers counts
BEAMS = (1, 4)

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "as OPUS-MT": {},
    "gelu, unscaled embeddings": {
        "activation_function": "gelu",
        "scale_embedding": False,
        "init_std": 0.15,  # as large as scaled ones: positions would drown less
    },
    "relu, deep encoder, one decoder layer": {
        "activation_function": "relu",
        "encoder_layers": 4,
        "decoder_layers": 1,
        "epochs": 24,
    },
    "other heads and widths on each side": {
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 96,
        "decoder_ffn_dim": 160,
    },
    "output layer of its own": {"tie_word_embeddings": False},
    "two vocabularies": {"separate": True},
}


@dataclass(frozen=True)
class Found:
    """What came of a source."""

    tokens: tuple[int, ...]  # without start, end and padding
    score: float


@dataclass(frozen=True)
class Comparison:
    """One checkpoint, one beam."""

    name: str
    beam: int
    identical: int  # of ours and transformers', each sentence alone
    batched: int  # of ours alone and ours in batches
    rounding: (
        int  # differences where our search over PyTorch finds transformers' tokens
    )
    score: float  # the largest difference of the scores where tokens agree
    peer: int | None  # of ours and CTranslate2's
    distinct: int  # outputs, and how much they vary
    types: float
    lengths: tuple[int, int]


def make(folder: Path, name: str, texts: Sequence[tuple[str, str]]) -> None:
    """A checkpoint of one configuration, taught a little."""
    changes = dict(CONFIGURATIONS[name])
    separate, epochs = changes.pop("separate", False), changes.pop("epochs", 9)
    sources, targets = [s for s, _ in texts], [t for _, t in texts]
    tokenizer = write_tokenizer(folder, sources, targets, (1100, 1100), separate)
    sizes = {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "max_length": MAX_LENGTH,
    }
    torch.manual_seed(len(name))
    model = MarianMTModel(marian_config(folder, **sizes | changes))
    pairs = [pair_of(tokenizer, *text) for text in texts]
    train(model, pairs, epochs, folder / "training")
    shutil.rmtree(folder / "training", ignore_errors=True)
    write_model(folder, model)


def pair_of(tokenizer: Any, source: str, target: str) -> Pair:
    """Ids of both sides, with their end tokens."""
    return (
        tokenizer(source)["input_ids"],
        tokenizer(text_target=target)["input_ids"],
    )


def reference(folder: Path, sources: Sequence[list[int]], beam: int) -> list[Found]:
    """What transformers says, sentence by sentence."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    special = {
        model.generation_config.eos_token_id,
        model.generation_config.pad_token_id,
    }
    results = []
    for source in sources:
        output = model.generate(
            torch.tensor([source]),
            num_beams=beam,
            do_sample=False,
            max_length=MAX_LENGTH,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
        )
        tokens = [
            int(token) for token in output.sequences[0] if int(token) not in special
        ]
        results.append(Found(tuple(tokens), _score(model, output)))
    return results


def _score(model: Any, output: Any) -> float:
    """The beam's score, or the greedy tokens' summed log-probability.

    The model's own: what is banned keeps its share of the probability.
    """
    if output.get("sequences_scores") is not None:
        return float(output.sequences_scores[0])
    scores = model.compute_transition_scores(
        output.sequences, output.logits, normalize_logits=True
    )
    return float(scores.sum())


def ours(
    translator: Translator, sources: Sequence[list[int]], beam: int
) -> list[Found]:
    """What the bundle says of a batch."""
    options = replace(translator.defaults, beam_size=beam, max_length=MAX_LENGTH - 1)
    found: list[list[Hypothesis]] = translator.generate(sources, options)
    return [
        Found(best.tokens, best.log_prob if beam == 1 else best.score)
        for best, *_ in found
    ]


def in_torch(
    folder: Path, translator: Translator, source: list[int], beam: int
) -> tuple[int, ...]:
    """What our search finds when PyTorch computes the same weights.

    Where this is what transformers finds, and the bundle's is not, two hypotheses lay
    so near each other that the order of float32 sums chose between them.
    """
    stepper = TorchStepper(load_checkpoint(folder).module)
    [best] = ours(replace(translator, stepper=stepper), [source], beam)
    return best.tokens


def peer(folder: Path, sources: Sequence[list[int]], beam: int) -> list[Found] | None:
    """What CTranslate2 says, where its converter takes the folder."""
    if (folder / "target_vocab.json").is_file():
        return None
    converted = folder / "ctranslate2"
    if not converted.is_dir():
        converter = ctranslate2.converters.TransformersConverter(str(folder))
        converter.convert(str(converted))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    translator = ctranslate2.Translator(str(converted), device="cpu", intra_threads=1)
    results = translator.translate_batch(
        [tokenizer.convert_ids_to_tokens(source) for source in sources],
        beam_size=beam,
        max_decoding_length=MAX_LENGTH - 2,
        return_scores=True,
    )
    return [
        Found(tuple(tokenizer.convert_tokens_to_ids(one.hypotheses[0])), one.scores[0])
        for one in results
    ]


def compare(
    name: str, folder: Path, sources: Sequence[list[int]], sample: Path
) -> Iterator[Comparison]:
    """A checkpoint with each beam."""
    bundle = folder / "bundle"
    export_checkpoint(folder, bundle, ExportOptions(sample=sample, force=True))
    translator = Translator.load(bundle)
    for beam in BEAMS:
        expected = reference(folder, sources, beam)
        alone = [ours(translator, [source], beam)[0] for source in sources]
        batched = ours(translator, sources, beam)
        same = [a.tokens == b.tokens for a, b in zip(alone, expected, strict=True)]
        apart = np.array(
            [abs(a.score - b.score) for a, b in zip(alone, expected, strict=True)]
        )
        other = peer(folder, sources, beam)
        yield Comparison(
            name,
            beam,
            identical=sum(same),
            batched=sum(
                a.tokens == b.tokens for a, b in zip(alone, batched, strict=True)
            ),
            rounding=sum(
                in_torch(folder, translator, source, beam) == found.tokens
                for source, found, agrees in zip(sources, expected, same, strict=True)
                if not agrees
            ),
            score=float(apart[same].max()),
            peer=other
            and sum(a.tokens == b.tokens for a, b in zip(alone, other, strict=True)),
            distinct=len({one.tokens for one in expected}),
            types=float(
                np.mean([len({*x.tokens}) / max(len(x.tokens), 1) for x in expected])
            ),
            lengths=(
                min(len(one.tokens) for one in expected),
                max(len(one.tokens) for one in expected),
            ),
        )


def row(one: Comparison) -> str:
    """A line of the table."""
    shortest, longest = one.lengths
    return (
        f"| {one.name} | {one.beam} | {one.identical} | {one.rounding} | "
        f"{one.score:.1e} | {one.batched} | "
        f"{'not converted' if one.peer is None else one.peer} | {one.distinct} | "
        f"{one.types:.2f} | {shortest} to {longest} |"
    )


def main() -> None:
    """Make, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
    draw = random.Random(1)
    texts = draw.sample(read_pairs(arguments.corpora / "train.tsv"), TAUGHT)
    dev = draw.sample(read_pairs(arguments.corpora / "dev.tsv"), SENTENCES)
    sample = arguments.work / "sample.tsv"
    arguments.work.mkdir(parents=True, exist_ok=True)
    sample.write_text("".join(f"{s}\t{t}\n" for s, t in dev), encoding="utf-8")
    folders = {name: folder for folder in arguments.folders for name in [folder.name]}
    for number, name in enumerate(CONFIGURATIONS):
        folders[name] = arguments.work / str(number)
        if not (folders[name] / "model.safetensors").is_file():
            make(folders[name], name, texts)
    print(
        "| checkpoint | beam | as transformers | rounding | score apart | "
        "batch as alone | as CTranslate2 | distinct | types a token | tokens |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, folder in folders.items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        sources = [tokenizer(source)["input_ids"] for source, _ in dev]
        for one in compare(name, folder, sources, sample):
            print(row(one), flush=True)


if __name__ == "__main__":
    main()

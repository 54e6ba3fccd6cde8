"""Whether a model and a tokenizer do what those of transformers do."""

import random
from collections.abc import Iterator
from typing import Any

import torch
from hf_folders import ENGLISH, GERMAN, LANGUAGES
from torch import Tensor

from seq2edge.models.transformer import Transformer
from seq2edge.runtime.pieces import LINE_BREAK, PieceTokenizer

STRINGS = 1500
ODD = " \t\n\r\u00a0\u2003\u2028\u200b\u3000\x00\x01\x7f\x85\ufeff\ufffd"
SIGNS = "aäßeéñ漢字かなعربيไทย😀👩‍🚀①ﬁＡ½'\"“”«».,;:!?-–—<>/_▁0123456789"
PARTS = (
    *ENGLISH,
    *GERMAN,
    "</s>",
    "<unk>",
    "<pad>",
    "<s>",
    "<mask>",
    *(f">>{code}<<" for code in (*LANGUAGES, "xyz", "")),
    *("__de__", "__zu__", "__xx__", "eng_Latn", "zho_Hans", "en_XX", "gl_ES", "xx_XX"),
    ">>",
    "<<",
    "",
    " ",
)


def strings() -> Iterator[str]:
    """Corpus words, special tokens and odd signs, in any order; and long ones."""
    draw = random.Random(5)
    words = " ".join(PARTS).split()
    yield from PARTS
    yield " ".join(ENGLISH * 40)
    for _ in range(STRINGS):
        parts = [
            draw.choice(
                (
                    draw.choice(words),
                    draw.choice(PARTS[len(ENGLISH) + len(GERMAN) :]),
                    "".join(draw.choices(SIGNS, k=draw.randint(1, 6))),
                    "".join(draw.choices(ODD, k=draw.randint(1, 3))),
                )
            )
            for _ in range(draw.randint(0, 8))
        ]
        yield draw.choice(("", " ")).join(parts)


def assert_same_ids(mine: PieceTokenizer, theirs: Any) -> None:
    for text in strings():
        assert mine.encode(text) == theirs(text).input_ids, repr(text)


def assert_same_texts(mine: PieceTokenizer, theirs: Any, size: int) -> None:
    """Of random ids, special and unknown ones among them."""
    draw = random.Random(6)
    for _ in range(STRINGS):
        ids = draw.choices(range(size), k=draw.randint(0, 20))
        expected = theirs.decode(ids, skip_special_tokens=True)
        assert mine.decode(ids) == LINE_BREAK.sub(" ", expected), ids


def batch(model: Any, sizes: tuple[int, int, int] = (3, 9, 7)) -> dict[str, Tensor]:
    """Ragged sources and teacher-forced targets, drawn with a seed."""
    generator = torch.Generator().manual_seed(1)
    rows, source_length, target_length = sizes
    config = model.config
    lengths = torch.tensor([source_length, 4, 1])[:rows]
    source = torch.randint(
        2, config.vocab_size - 1, (rows, source_length), generator=generator
    )
    mask = torch.arange(source_length)[None] < lengths[:, None]
    size = getattr(config, "decoder_vocab_size", None) or config.vocab_size
    target = torch.randint(2, size - 1, (rows, target_length), generator=generator)
    start = config.decoder_start_token_id
    target[:, 0] = config.eos_token_id if start is None else start
    return {
        "input_ids": source.masked_fill(~mask, config.pad_token_id),
        "attention_mask": mask.long(),
        "decoder_input_ids": target,
    }


def outputs(module: Transformer, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Our logits, and what the encoder's last norm or layer gives."""
    seen: list[Tensor] = []
    hook = module.encoder.norm.register_forward_hook(lambda *call: seen.append(call[2]))
    lengths = given["attention_mask"].sum(dim=1).int()
    inputs = {"source": given["input_ids"], "source_lengths": lengths}
    with torch.no_grad():
        logits = module(inputs, given["decoder_input_ids"])
    hook.remove()
    return logits, seen[0]


def assert_same(model: Any, module: Transformer) -> None:
    """Equal encoder outputs and logits, to 1e-5 of their largest value."""
    given = batch(model)
    with torch.no_grad():
        expected = model(**given)
    logits, encoded = outputs(module, given)
    real = given["attention_mask"].bool()
    for ours, theirs in (
        (logits, expected.logits),
        (encoded[real], expected.encoder_last_hidden_state[real]),
    ):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()

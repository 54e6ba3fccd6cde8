"""Small Hugging Face folders: random models of transformers with real tokenizers.

The corpus is a few sentences in two languages; a SentencePiece model is trained on it.
"""

import io
import json
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch

with warnings.catch_warnings():  # its own, of optional packages and Python's future
    warnings.simplefilter("ignore")
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

ENGLISH = (
    "The cat sat on the mat and looked out of the window.",
    "A dog ran home, for it was late in the evening.",
    "How many birds sing in the old tree today?",
    "She reads a long letter; he writes a short one.",
    "We don't know what they're doing, but it's fine.",
    "Seven small boats lie in the harbour of the town.",
    "Please bring 25 apples, 3 pears and some bread!",
    "The train to the north leaves at half past nine.",
)
GERMAN = (
    "Die Katze saß auf der Matte und sah aus dem Fenster.",
    "Ein Hund lief nach Hause, denn es war spät am Abend.",
    "Wie viele Vögel singen heute im alten Baum?",
    "Sie liest einen langen Brief; er schreibt einen kurzen.",
    "Wir wissen nicht, was sie tun, aber es ist gut.",
    "Sieben kleine Boote liegen im Hafen der Stadt.",
    "Bitte bring 25 Äpfel, 3 Birnen und etwas Brot!",
    "Der Zug nach Norden fährt um halb zehn ab.",
)
LANGUAGES = ("deu", "fra", "nld")
SMALL: Mapping[str, object] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}


@cache
def spm(sentences: tuple[str, ...], size: int = 110, **options: Any) -> bytes:
    """A SentencePiece model as Marian's users train one."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    return model.getvalue()


def pieces(model: bytes) -> list[str]:
    """All pieces of a model but its control symbols."""
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    ids = range(processor.get_piece_size())
    plain = [i for i in ids if not processor.is_control(i) and i != processor.unk_id()]
    return [processor.id_to_piece(i) for i in plain]


def numbered(names: Iterable[str], languages: Iterable[str] = ()) -> dict[str, int]:
    """A vocabulary as Marian's are: end, unknown, pieces, languages, padding."""
    tokens = [f">>{code}<<" for code in languages]
    order = dict.fromkeys(["</s>", "<unk>", *names, *tokens, "<pad>"])
    return {piece: index for index, piece in enumerate(order)}


def of_one_size(*sides: list[str]) -> list[dict[str, int]]:
    """Vocabularies of both sides with padding at the same id, as transformers wants."""
    size = min(map(len, sides))
    return [numbered(side[:size]) for side in sides]


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def change(file: Path, **values: object) -> None:
    """Other values in a JSON object."""
    content = json.loads(file.read_text(encoding="utf-8"))
    write_json(file, {**content, **values})


def marian_folder(
    folder: Path,
    *,
    pickled: bool = False,
    languages: tuple[str, ...] = (),
    separate: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    steps: int = 0,
    **config: object,
) -> MarianMTModel:
    """Write a folder as those of Helsinki-NLP are; its model in eval mode."""
    folder.mkdir(parents=True, exist_ok=True)
    source, target = spm(ENGLISH), spm(GERMAN)
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    if separate:
        vocabularies = of_one_size(pieces(source), pieces(target))
        write_json(folder / "target_vocab.json", vocabularies[1])
        config |= {"share_encoder_decoder_embeddings": False}
    else:
        joint = [*pieces(source), *pieces(target)]
        vocabularies = [numbered(joint, languages)] * 2
    write_json(folder / "vocab.json", vocabularies[0])
    settings = {"source_lang": "eng", "target_lang": "deu", "separate_vocabs": separate}
    write_json(folder / "tokenizer_config.json", settings)
    model = _marian(vocabularies, seed, config)
    if steps:
        taught(model, marian_tokenizer(folder), steps)
    with warnings.catch_warnings():  # it moves generation keys to their own file
        warnings.simplefilter("ignore")
        model.to(dtype).save_pretrained(folder, safe_serialization=not pickled)
    if dtype is torch.float32:
        return model
    return MarianMTModel.from_pretrained(folder, dtype=torch.float32).eval()


def _marian(
    vocabularies: list[dict[str, int]], seed: int, config: Mapping[str, object]
) -> MarianMTModel:
    reads, writes = vocabularies
    pad = writes["<pad>"]
    settings = {
        **SMALL,
        "vocab_size": len(reads),
        "decoder_vocab_size": len(writes),
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
        "bad_words_ids": [[pad]],
        "activation_function": "swish",
        "scale_embedding": True,
        "max_length": 40,
        "num_beams": 4,
        **config,
    }
    torch.manual_seed(seed)
    return MarianMTModel(MarianConfig(**settings)).eval()


def taught(model: Any, tokenizer: Any, steps: int = 120) -> Any:
    """Trained until it translates the corpus: what it writes varies, and ends."""
    batch = tokenizer(list(ENGLISH), text_target=list(GERMAN), padding=True)
    tensors = {key: torch.tensor(value) for key, value in batch.items()}
    labels = tensors["labels"]
    labels[labels == model.config.pad_token_id] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**tensors).loss.backward()
        optimizer.step()
    return model.eval()


def marian_tokenizer(folder: Path) -> Any:
    """Transformers' own, without its warning of an optional package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MarianTokenizer.from_pretrained(folder)

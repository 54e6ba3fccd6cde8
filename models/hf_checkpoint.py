"""A Hugging Face folder as a checkpoint, read without transformers.

What the folder's files mean is said by `hf_config`, `hf_weights`, `hf_tokenizer` and
`hf_generation`; docs/hugging-face.md lists what is supported.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from seq2edge.models.about import About
from seq2edge.models.build import build_model
from seq2edge.models.checkpoint import CONFIG, FORMAT, Checkpoint, CheckpointInfo
from seq2edge.models.hf_config import HfConfig, read_config
from seq2edge.models.hf_folder import read_object, weight_files
from seq2edge.models.hf_generation import Generation, read_generation, search_options
from seq2edge.models.hf_languages import chosen_languages
from seq2edge.models.hf_settings import HfTokenizer
from seq2edge.models.hf_tokenizer import read_tokenizer
from seq2edge.models.hf_weights import load_weights
from seq2edge.models.inputs import input_specs
from seq2edge.models.transformer import Transformer
from seq2edge.models.transformer_config import TransformerConfig
from seq2edge.runtime.errors import CheckpointError
from seq2edge.runtime.languages import LanguagePair, start, told
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.vocabulary import Vocabulary

_SILENT = -1000.0  # exp of it is 0 in float32; -inf would make NaN where it is compared


def load_huggingface(folder: Path, languages: LanguagePair) -> Checkpoint:
    """Read and check the folder; CheckpointError says what is wrong in one sentence.

    languages: those of the bundle, where the folder doesn't say them or others.
    """
    config = read_config(folder / CONFIG, read_object(folder / CONFIG))
    size = config.model.target_vocabulary
    generation = read_generation(folder, config.values, size)
    tokenizer = read_tokenizer(folder, config)
    spec = chosen_languages(folder, tokenizer.spec.languages, generation, languages)
    tokenizer = replace(tokenizer, spec=replace(tokenizer.spec, languages=spec))
    files = weight_files(folder)
    _check_room(folder, config.model, files)
    module = build_model(config.model)
    assert isinstance(module, Transformer)
    load_weights(module, files, config.family.has_bias)
    if generation.renormalizes:
        _silence(module, [ids[0] for ids in generation.banned])
    info = _info(folder, config, tokenizer, generation)
    return Checkpoint(folder, info, module.eval(), files)


def _check_room(folder: Path, model: TransformerConfig, files: Sequence[Path]) -> None:
    """Refuse a configuration of more weights than the files have bytes.

    Before a module of that size is made, which may be more than there is memory.
    """
    size, layers = model.size, model.encoder_layers + model.decoder_layers
    widths = model.encoder_feed_forward + model.decoder_feed_forward
    least = size * (model.target_vocabulary + 4 * layers * size + 2 * widths)
    room = sum(file.stat().st_size for file in files)
    if least > room:
        raise CheckpointError(
            f"{folder / CONFIG} asks for {least} weights or more, and {files[0].name} "
            f"has {room} bytes; copy both from the same model"
        )


def _silence(module: Transformer, tokens: Sequence[int]) -> None:
    """Give tokens that never come no probability, so that the others sum to 1."""
    bias = module.output.projection.bias
    with torch.no_grad():
        bias[[*tokens]] = _SILENT


def _info(
    folder: Path, config: HfConfig, tokenizer: HfTokenizer, generation: Generation
) -> CheckpointInfo:
    model, spec = config.model, tokenizer.spec.languages
    source, target = (spec.source, spec.target) if spec else (None, None)
    vocabulary, search = told(
        spec,
        _vocabulary(folder, config, tokenizer, generation),
        search_options(generation),
    )
    return CheckpointInfo(
        format=FORMAT,
        about=About(
            folder.resolve().name,
            source or tokenizer.source_language,
            target or tokenizer.target_language,
        ),
        model=model,
        inputs=input_specs(model),
        labels=(),
        metric="bleu",
        vocabulary=vocabulary,
        tokenizer=tokenizer.spec,
        limits=Limits(model.max_positions, model.max_positions),
        search=search,
        training={},
    )


def _vocabulary(
    folder: Path, config: HfConfig, tokenizer: HfTokenizer, generation: Generation
) -> Vocabulary:
    """The special ids of the target, checked against each other and the size."""
    size = config.model.target_vocabulary
    language = start(tokenizer.spec.languages)
    ids = {
        "pad_token_id": config.token("pad_token_id"),
        "eos_token_id": generation.end,
        "decoder_start_token_id": generation.start if language is None else language,
    }
    faults = [
        f"{key} = {token!r} is outside of the vocabulary (0 to {size - 1})"
        for key, token in ids.items()
        if token is None or token >= size
    ]
    if generation.end not in tokenizer.spec.suffix:
        faults.append(
            f"eos_token_id = {generation.end} isn't the tokenizer's "
            f"({tokenizer.spec.suffix[0]})"
        )
    if faults:
        raise CheckpointError(
            f"{folder / CONFIG}: {'; '.join(faults)}; copy the whole folder of the "
            "model again"
        )
    pad, end, begin = (token or 0 for token in ids.values())
    return Vocabulary(size, pad, tokenizer.unknown, begin, end)

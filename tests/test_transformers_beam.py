"""Hugging Face transformers judges the search that follows its rule.

A tiny Marian model with random weights, scaled so that its outputs vary, decodes 100
sources with `generate` and behind our seam. Both compute in float64 and hand over
float32, so that rounding doesn't tell: tokens and scores must be equal to the bit.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from toy_decoding import UnaskedDecoding

from seq2edge.runtime.batch import Guidance
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.search import search
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray
from seq2edge.runtime.vocabulary import Vocabulary

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers: Any = import_module("transformers")

SIZE, LONGEST, SOURCES = 50, 12, 100
END, PAD = 0, 49  # Marian begins with its padding
VOCABULARY = Vocabulary(size=SIZE, pad=PAD, unknown=1, start=PAD, end=END)
BAD = [[PAD]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> Any:
    config = transformers.MarianConfig(
        vocab_size=SIZE,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=PAD,
        forced_eos_token_id=None,
        attn_implementation="eager",
    )
    model = transformers.MarianMTModel(config).eval().double()
    with torch.no_grad():
        # An output of its own, or it would say the last token again.
        model.lm_head.weight = torch.nn.Parameter(torch.empty(SIZE, 16).double())
        torch.manual_seed(0)
        for name, weight in model.named_parameters():
            if "norm" not in name and name != "lm_head.weight":
                weight.normal_(0, 1 if "shared" in name else 0.4)
        model.lm_head.weight.normal_(0, 0.3)
        model.final_logits_bias[0, END] = 4  # sentences should end
    return model


@dataclass
class MarianStepper:
    """A transformers model behind our seam; every step decodes the whole prefix."""

    model: Any

    @torch.inference_mode()
    def start(self, inputs: Inputs) -> "MarianDecoding":
        source, mask = torch.from_numpy(np.asarray(inputs["source"])), mask_of(inputs)
        encoded = self.model.get_encoder()(source, mask).last_hidden_state
        rows = torch.zeros((len(source), 0), dtype=torch.int64)
        return MarianDecoding(self.model, encoded, mask, rows)


@dataclass
class MarianDecoding(UnaskedDecoding):
    model: Any
    encoded: torch.Tensor  # (batch, time, width)
    mask: torch.Tensor  # (batch, time)
    prefixes: torch.Tensor  # (rows, length)

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        top = torch.from_numpy(self.scores(tokens, parents)).topk(count)
        return top.values.numpy(), top.indices.numpy()

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        logits = torch.from_numpy(self.logits(tokens, parents))
        log_probs: FloatArray = logits.log_softmax(-1).numpy()
        return log_probs

    @torch.inference_mode()
    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        past = self.prefixes if parents is None else self.prefixes[parents]
        self.prefixes = torch.cat([past, torch.from_numpy(tokens)[:, None]], dim=1)
        beam = len(tokens) // len(self.encoded)
        outputs = self.model(
            encoder_outputs=(self.encoded.repeat_interleave(beam, 0),),
            attention_mask=self.mask.repeat_interleave(beam, 0),
            decoder_input_ids=self.prefixes,
            use_cache=False,
        )
        logits: FloatArray = outputs.logits[:, -1].float().numpy()
        return logits

    def keep(self, sentences: IntArray) -> None:
        batch = len(self.encoded)
        beams = self.prefixes.reshape(batch, -1, self.prefixes.shape[1])
        self.prefixes = beams[sentences].flatten(0, 1)
        self.encoded, self.mask = self.encoded[sentences], self.mask[sentences]


def mask_of(inputs: Inputs) -> torch.Tensor:
    lengths = torch.from_numpy(np.asarray(inputs["source_lengths"]))
    return torch.arange(inputs["source"].shape[1]) < lengths[:, None]


def sources() -> dict[str, Any]:
    random = np.random.default_rng(3)
    lengths = random.integers(1, 9, SOURCES)
    source = np.full((SOURCES, lengths.max()), PAD)
    for row, length in enumerate(lengths):
        source[row, :length] = random.integers(2, PAD, length)
    return {"source": source, "source_lengths": lengths}


def generate(
    model: Any, given: dict[str, Any], prefix: Sequence[int] = ()
) -> list[list[tuple[tuple[int, ...], float]]]:
    """What transformers says: tokens with their end and score, of each sentence."""
    inputs = sources()
    config = transformers.GenerationConfig(
        eos_token_id=END,
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        use_cache=False,
        return_dict_in_generate=True,
        output_scores=True,
        **{"max_length": LONGEST, "bad_words_ids": BAD, **given},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.generate(
            torch.from_numpy(inputs["source"]),
            generation_config=config,
            attention_mask=mask_of(inputs),
            decoder_input_ids=torch.tensor([[PAD, *prefix]] * SOURCES),
        )
    rows = [until_end(row) for row in found.sequences[:, 1:].tolist()]
    scores = getattr(found, "sequences_scores", None)
    scores = [0.0] * len(rows) if scores is None else scores.tolist()
    count = len(rows) // SOURCES
    pairs = list(zip(rows, scores, strict=True))
    return [pairs[first : first + count] for first in range(0, len(pairs), count)]


def until_end(row: list[int]) -> tuple[int, ...]:
    return tuple(row[: row.index(END) + 1] if END in row else row)


def ours(
    model: Any, options: SearchOptions, prefix: Sequence[int] = ()
) -> list[list[Hypothesis]]:
    lengths, guidance = [LONGEST - 1] * SOURCES, Guidance([prefix] * SOURCES)
    stepper = MarianStepper(model)
    return search(stepper, sources(), VOCABULARY, options, lengths, guidance)


def like_transformers(**given: Any) -> SearchOptions:
    usual = {
        "beam_rule": "transformers",
        "allow_unknown": True,
        "allow_special": True,
        "suppressed": ((PAD,),),
        "length_penalty": 1.0,
    }
    return SearchOptions(**{**usual, **given})


def assert_equal(
    model: Any,
    options: SearchOptions,
    prefix: Sequence[int] = (),
    **given: Any,
) -> None:
    theirs = generate(model, given, prefix)
    found = ours(model, options, prefix)
    for expected, hypotheses in zip(theirs, found, strict=True):
        tokens = [one.tokens + (END,) * one.finished for one in hypotheses]
        assert tokens == [row for row, _ in expected]
        if options.beam_size > 1:
            assert [one.score for one in hypotheses] == [score for _, score in expected]


def test_the_model_says_many_things(model: Any) -> None:
    found = generate(model, {"num_beams": 4})
    lengths = [len(row) for [(row, _)] in found]
    assert len({row for [(row, _)] in found}) > SOURCES / 2
    assert set(lengths) > {1, 2, 3, 4, 5, 6, LONGEST - 1}


@pytest.mark.parametrize("beam_size", [2, 3, 4, 5])
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
def test_beams_stop_and_rank_as_there(
    model: Any, beam_size: int, early_stopping: Any, length_penalty: float
) -> None:
    options = like_transformers(
        beam_size=beam_size,
        n_best=beam_size,
        early_stopping=early_stopping,
        length_penalty=length_penalty,
    )
    assert_equal(
        model,
        options,
        num_beams=beam_size,
        num_return_sequences=beam_size,
        early_stopping=early_stopping,
        length_penalty=length_penalty,
    )


# Our options, and theirs.
CONSTRAINTS = [
    ({}, {}),
    ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
    ({"repetition_penalty": 0.8}, {"repetition_penalty": 0.8}),
    ({"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 1}),
    ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
    ({"no_repeat_ngram_size": 3}, {"no_repeat_ngram_size": 3}),
    (
        {"suppressed": ((PAD,), (7,), (21,), (30,))},
        {"bad_words_ids": [*BAD, [7], [21], [30]]},
    ),
    (
        {"suppressed": ((PAD,), (7, 8), (13, 13), (9, END), (4, 5, 6))},
        {"bad_words_ids": [*BAD, [7, 8], [13, 13], [9, END], [4, 5, 6]]},
    ),
    ({"forced_end": True}, {"forced_eos_token_id": END}),
    ({"forced_first": 17}, {"forced_bos_token_id": 17}),
    ({"min_length": 5}, {"min_length": 6}),  # theirs counts the start token
    ({"min_length": 5}, {"min_new_tokens": 5}),
    (
        {"max_length": 5, "forced_end": True},
        {"max_length": 6, "forced_eos_token_id": END},
    ),
    (
        {
            "repetition_penalty": 1.3,
            "no_repeat_ngram_size": 2,
            "forced_first": 17,
            "forced_end": True,
            "min_length": 4,
        },
        {
            "repetition_penalty": 1.3,
            "no_repeat_ngram_size": 2,
            "forced_bos_token_id": 17,
            "forced_eos_token_id": END,
            "min_length": 5,
        },
    ),
]


@pytest.mark.parametrize("beam_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("mine", "theirs"), CONSTRAINTS)
def test_constraints_hold_as_there(
    model: Any, beam_size: int, mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert_equal(
        model,
        like_transformers(beam_size=beam_size, n_best=beam_size, **mine),
        num_beams=beam_size,
        num_return_sequences=beam_size,
        **theirs,
    )


@pytest.mark.parametrize("beam_size", [1, 4])
@pytest.mark.parametrize(("mine", "theirs"), [CONSTRAINTS[0], CONSTRAINTS[-1]])
def test_a_prefix_is_their_decoder_input(
    model: Any, beam_size: int, mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    mine = {name: value for name, value in mine.items() if name != "forced_first"}
    assert_equal(
        model,
        like_transformers(beam_size=beam_size, early_stopping="never", **mine),
        [5, 6, 5],
        num_beams=beam_size,
        early_stopping="never",
        **theirs,
    )

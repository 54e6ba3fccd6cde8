"""Prefixes, numbers, callbacks, deadlines and alternatives, on committed bundles."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from seq2edge.runtime import Guide, SearchOptions, Translator, Watch
from seq2edge.runtime.batching import Batching
from seq2edge.runtime.engine import Engine
from seq2edge.runtime.errors import ConfigError, InputError

DATA = Path(__file__).parent / "data"
TEXTS = ["one red dog", "two dog sun", "sun one", "red", "dog two red one"]
KINDS = [
    SearchOptions(beam_size=1),
    SearchOptions(beam_size=3, n_best=2),
    SearchOptions(beam_size=3, beam_rule="transformers"),
    SearchOptions(beam_size=3, coverage_penalty=0.3),
    SearchOptions(sampling=True, temperature=2.0, n_best=2, seed=4),
    SearchOptions(sampling=True, temperature=2.0, top_k=5),
]


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator.load(DATA / "toy-fp32")


@pytest.fixture(scope="module", params=["fp32", "int8"])
def each(request: pytest.FixtureRequest) -> Translator:
    return Translator.load(DATA / f"toy-{request.param}")


@pytest.mark.parametrize("options", KINDS)
def test_a_text_is_the_same_alone_and_in_any_company(
    each: Translator, options: SearchOptions
) -> None:
    guide = Guide(["rot", "", "Hund", "", ""], range(10, 15))
    together = each.translate_batch(TEXTS, options, guide=guide)
    for place, text in enumerate(TEXTS):
        alone = each.translate(text, options, guide=guide.part(place, 1))
        assert alone.tokens == together[place].tokens
        assert alone.alternatives == pytest.approx(together[place].alternatives) or [
            one.tokens for one in alone.alternatives
        ] == [one.tokens for one in together[place].alternatives]


@pytest.mark.parametrize("options", KINDS)
def test_a_prefix_is_text_or_its_ids(
    translator: Translator, options: SearchOptions
) -> None:
    assert translator.tokenizer is not None
    ids = translator.tokenizer.encode_target("rot zwei")
    by_text = translator.translate("one red", options, guide=Guide(["rot zwei"]))
    assert by_text.text.startswith("rot zwei")
    assert translator.translate("one red", options, guide=Guide([ids])) == by_text
    arrays = [translator.tokenizer.encode("one red")]
    [[found, *_]] = translator.generate(arrays, options, Guide([ids]))
    assert translator.pieces(found.tokens) == by_text.tokens


def test_a_biased_prefix_is_left_where_the_model_knows_better(
    translator: Translator,
) -> None:
    guide = Guide(["rot"])
    texts = {
        beta: translator.translate(
            TEXTS[0], SearchOptions(prefix_bias=beta), guide=guide
        ).text
        for beta in (0.0, 0.1, 0.9)
    }
    right = translator.translate(TEXTS[0]).text
    assert texts[0.1] == right
    assert texts[0.0].startswith("rot")
    assert texts[0.9].startswith("rot")


def test_a_text_in_pieces_has_no_prefix(translator: Translator) -> None:
    text = "one red dog. " * 40
    with pytest.raises(InputError, match="text 0 has a prefix and is too long"):
        translator.translate(text, guide=Guide(["rot"]))
    with pytest.raises(InputError, match="too long to be translated at once"):
        translator.alternatives(text)


def test_a_blank_text_stays_blank(translator: Translator) -> None:
    found = translator.translate(" ", guide=Guide(["rot"]))
    assert (found.text, found.flags.empty) == ("", True)
    assert translator.alternatives("") == []


def test_as_many_prefixes_as_texts(translator: Translator) -> None:
    with pytest.raises(InputError, match="1 prefixes don't fit 2 texts"):
        translator.translate_batch(TEXTS[:2], guide=Guide(["rot"]))
    with pytest.raises(InputError, match="1 numbers don't fit 2 texts"):
        translator.translate_batch(TEXTS[:2], guide=Guide(numbers=[1]))


def test_a_stream_counts_on(translator: Translator) -> None:
    one_by_one = replace(translator, batching=Batching(lines=2))
    options = KINDS[4]
    streamed = [*one_by_one.translate_stream(iter([TEXTS[0]] * 5), options)]
    guide = Guide(numbers=range(5))
    assert [one.tokens for one in streamed] == [
        one.tokens
        for one in translator.translate_batch([TEXTS[0]] * 5, options, guide=guide)
    ]
    assert len({one.tokens for one in streamed}) > 1


@pytest.mark.parametrize("options", KINDS)
def test_a_callback_hears_the_translation(
    translator: Translator, options: SearchOptions
) -> None:
    heard: dict[int, list[int]] = {}

    def tell(number: tuple[int, ...], token: int) -> None:
        text, piece, sample = number
        assert piece == 0
        if sample == 0:
            heard.setdefault(text, []).append(token)

    guide = Guide(numbers=[7, 8, 9, 10, 11], watch=Watch(tell))
    found = translator.translate_batch(TEXTS, options, guide=guide)
    assert sorted(heard) == [7, 8, 9, 10, 11]
    for number, one in zip(range(7, 12), found, strict=True):
        assert translator.pieces(heard[number]) == one.tokens


def test_a_callback_stops_its_text(translator: Translator) -> None:
    watch = Watch(lambda number, token: number.text == 1)
    first, second = translator.translate_batch(
        TEXTS[:2], KINDS[0], guide=Guide(watch=watch)
    )
    assert first.flags.stopped == ""
    assert second.flags.stopped == "callback"
    assert not second.flags.hit_length_limit
    assert len(second.tokens) == len(second.token_log_probs) == 1


def ticks() -> Iterator[float]:
    yield from (float(second) for second in range(10_000))


@pytest.mark.parametrize("options", KINDS)
def test_a_deadline_leaves_the_best_so_far(
    translator: Translator, options: SearchOptions
) -> None:
    # Asked at 1 before the first batch, at 2 and 3 behind its tokens; 2.5 is too late.
    clock = ticks()
    watch = Watch(deadline_ms=2500, clock=lambda: next(clock))
    small = replace(translator, batching=Batching(sentences=2))
    options = replace(options, min_length=3)
    found = small.translate_batch(TEXTS, options, guide=Guide(watch=watch))
    assert {one.flags.stopped for one in found} == {"deadline"}
    assert sorted(len(one.tokens) for one in found) == [0, 0, 0, 2, 2]
    assert not any(one.flags.hit_length_limit for one in found)
    assert sum(one.score == 0 for one in found) == 3


def test_an_interrupted_text_in_pieces_is_still_one_text(
    translator: Translator,
) -> None:
    text = "one red dog. " * 40
    for options in (KINDS[0], replace(KINDS[2], length_penalty=1.0)):
        watch = Watch(deadline_ms=1, clock=iter([0.0, *[9.0] * 99]).__next__)
        found = translator.translate(text, options, guide=Guide(watch=watch))
        assert found.flags.split
        assert (found.tokens, found.score) == ((), 0.0)


@pytest.mark.parametrize("options", KINDS)
def test_alternatives_differ_behind_the_prefix(
    each: Translator, options: SearchOptions
) -> None:
    found = each.alternatives(TEXTS[0], "Hund", 4, options)
    assert len({one.token for one in found}) == 4
    log_probs = [one.log_prob for one in found]
    assert log_probs == sorted(log_probs, reverse=True)
    for one in found:
        tokens = one.translation.tokens
        assert tokens[0] == "▁Hund"
        if len(tokens) > 1:
            assert tokens[1] == one.token
    if not options.sampling:
        best = each.translate(TEXTS[0], replace(options, n_best=1))
        assert found[0].translation.text == best.text


def test_alternatives_know_the_end_and_what_is_suppressed(
    translator: Translator,
) -> None:
    assert translator.tokenizer is not None
    size = translator.vocabulary.size
    found = translator.alternatives(TEXTS[3], "rot", size + 9)
    assert len(found) == size - 3  # without padding, start and unknown
    assert found[0].translation.text == "rot"  # the end is the likeliest
    [hund] = translator.tokenizer.encode_target("Hund")
    options = SearchOptions(suppressed=((hund,),))
    found = translator.alternatives(TEXTS[0], "", size, options)
    assert "▁Hund" not in {one.token for one in found}
    with pytest.raises(ConfigError, match="count 0 must be at least 1"):
        translator.alternatives(TEXTS[0], count=0)


def test_a_log_probability_for_every_token(translator: Translator) -> None:
    found = translator.translate(TEXTS[0], SearchOptions(beam_size=3, n_best=2))
    [other] = found.alternatives
    assert len(found.token_log_probs) == len(found.tokens)
    assert len(other.token_log_probs) == len(other.tokens)
    scored = translator.score(TEXTS[0], found.text)
    assert found.token_log_probs == pytest.approx(scored.log_probs[:-1], abs=1e-4)


def test_a_bundle_without_attention_says_so(translator: Translator) -> None:
    stepper = translator.stepper
    assert isinstance(stepper, Engine)
    manifest = stepper.bundle.manifest
    heads = {name: path for name, path in manifest.heads.items() if name != "attention"}
    bundle = replace(stepper.bundle, manifest=replace(manifest, heads=heads))
    blind = replace(translator, stepper=Engine.load(bundle))
    with pytest.raises(InputError, match="shows no attention"):
        blind.translate(TEXTS[0], SearchOptions(coverage_penalty=0.2))

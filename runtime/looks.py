"""Translations and what their model looked at: alignments, unknown tokens replaced."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from seq2edge.runtime.alignment import NO_ALIGNMENT, Alignment, align, attentions
from seq2edge.runtime.errors import InputError
from seq2edge.runtime.inputs import Example
from seq2edge.runtime.stepper import FloatArray
from seq2edge.runtime.text import Piece, join
from seq2edge.runtime.units import replacements, source_units, target_units, text_of

if TYPE_CHECKING:
    from seq2edge.runtime.tokenizer import Tokenizer
    from seq2edge.runtime.translator import Translation, Translator

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """What is asked of the attention."""

    align: bool
    replace_unknowns: bool

    def of(self, text: "Decoded", unknown: int) -> bool:
        """Whether anything is asked about a text."""
        return self.align or any(unknown in tokens for tokens in text.best)


@dataclass(frozen=True)
class Decoded:
    """A text that was decoded piece by piece."""

    lead: str  # what each piece was read behind
    pieces: Sequence[Piece]
    examples: Sequence[Example | None]  # of each piece; None where it is blank
    best: Sequence[Tokens]  # of each piece that isn't
    translation: "Translation"

    @property
    def sentences(self) -> list[tuple[str, Example, Tokens]]:
        """What was read and what was written, of each piece that isn't blank."""
        pairs = zip(self.pieces, self.examples, strict=True)
        read = [
            (self.lead + piece.text, one) for piece, one in pairs if one is not None
        ]
        return [(*one, best) for one, best in zip(read, self.best, strict=True)]

    def shown(self, looks: Sequence["Look"], asked: Asked) -> "Translation":
        """The translation with its alignment, or its unknown tokens replaced."""
        found = self.translation
        if any(look.replaced for look in looks):
            texts = iter([look.text for look in looks])
            written = ["" if one is None else next(texts) for one in self.examples]
            found = replace(found, text=join(self.pieces, written))
        if not asked.align:
            return found
        alignment = sum((look.alignment for look in looks), NO_ALIGNMENT)
        return replace(found, alignment=alignment)


@dataclass(frozen=True, eq=False)
class Look:
    """A sentence and the attention that its tokens paid, (target, source)."""

    tokens: Tokens
    source: tuple[str, ...]  # a name for every position
    attention: FloatArray
    tokenizer: "Tokenizer | None"  # None where the input is no text
    unknown: int
    replaced: dict[int, str] = field(default_factory=dict)  # unknown places, as units

    @property
    def text(self) -> str:
        """The text of the hypothesis, unknown tokens replaced."""
        assert self.tokenizer is not None  # or nothing is replaced
        return text_of(self.tokenizer, self.tokens, self.replaced)

    @property
    def alignment(self) -> Alignment:
        """Of pieces, and of the words of the text as it is written."""
        if self.tokenizer is None:
            return align(self.source, self.attention)
        written = target_units(self.tokenizer, self.tokens, self.unknown, self.replaced)
        return align(self.source, self.attention, (source_units(self.source), written))

    def with_replacements(self) -> "Look":
        """Every unknown token gets the unit that it looked at most."""
        units = source_units(self.source)
        found = replacements(units, self.attention, self.tokens, self.unknown)
        return replace(self, replaced=found)


def show(
    translator: "Translator", decoded: Sequence[Decoded], asked: Asked
) -> list["Translation"]:
    """Read what was chosen once more; InputError if the model shows no attention."""
    if asked.replace_unknowns and not translator.reader.is_text:
        raise InputError(
            "unknown tokens are replaced by pieces of the source, and this bundle "
            "reads no text; leave replace_unknowns out"
        )
    unknown = translator.vocabulary.unknown
    chosen = [text.sentences if asked.of(text, unknown) else [] for text in decoded]
    looks = iter(_looks(translator, [one for each in chosen for one in each], asked))
    return [
        text.shown([next(looks) for _ in sentences], asked)
        if sentences or asked.align
        else text.translation
        for text, sentences in zip(decoded, chosen, strict=True)
    ]


def _looks(
    translator: "Translator",
    sentences: Sequence[tuple[str, Example, Tokens]],
    asked: Asked,
) -> list[Look]:
    """The second pass."""
    found = attentions(
        translator,
        [example for _, example, _ in sentences],
        [tokens for _, _, tokens in sentences],
    )
    reader = translator.reader
    tokenizer = translator.tokenizer if reader.is_text else None
    unknown = translator.vocabulary.unknown
    looks = [
        Look(tokens, reader.positions(text, example), attention, tokenizer, unknown)
        for (text, example, tokens), attention in zip(sentences, found, strict=True)
    ]
    replaces = asked.replace_unknowns
    return [look.with_replacements() if replaces else look for look in looks]

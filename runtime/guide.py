"""What a caller may say of each text, beside the options that hold for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from seq2edge.runtime.errors import InputError
from seq2edge.runtime.monitor import Watch

if TYPE_CHECKING:
    from seq2edge.runtime.translator import Translator

Prefix: TypeAlias = str | Sequence[int]  # text, or ids of the target vocabulary


@dataclass(frozen=True)
class Guide:
    """Of each text, in its place; empty where there is nothing to say."""

    # What each translation begins with: forced, or preferred by options.prefix_bias.
    prefixes: Sequence[Prefix] = ()
    # Seed each text's samples and name it to watch.on_token; empty: 0, 1, 2, ...
    numbers: Sequence[int] = ()
    watch: Watch | None = None

    def part(self, first: int, count: int) -> "Guide":
        """The same of so many texts from place `first` on, numbered as before."""
        numbers = self.numbers or range(first, first + count)
        if self.numbers:
            numbers = self.numbers[first : first + count]
        return Guide(self.prefixes[first : first + count], numbers, self.watch)

    def check(self, texts: int) -> None:
        """Refuse prefixes or numbers that are not as many as there are texts."""
        for name, given in (("prefixes", self.prefixes), ("numbers", self.numbers)):
            if given and len(given) != texts:
                raise InputError(
                    f"{len(given)} {name} don't fit {texts} texts; give one for each"
                )


def prefix_ids(translator: "Translator", prefix: Prefix) -> tuple[int, ...]:
    """Ids of a prefix; of a text those of its pieces, and another piece follows.

    Without a tokenizer a text is ids with spaces between them.
    """
    if not isinstance(prefix, str):
        return tuple(prefix)
    return tuple(target_ids(translator, prefix)) if prefix.strip() else ()


def target_ids(translator: "Translator", text: str) -> list[int]:
    """The ids of a text of the target side, without end token."""
    if translator.tokenizer is not None:
        return translator.tokenizer.encode_target(text)
    try:
        return [int(number) for number in text.split()]
    except ValueError:
        raise InputError(
            f"the target is {text[:60]!r}, and this bundle has no tokenizer; give ids "
            "with spaces between them"
        ) from None

"""What a measurement translates, and how: the same for every bundle and process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.search import SearchOptions
from seq2edge.runtime.translator import Batching, Translator


@dataclass(frozen=True)
class Workload:
    """Sentences to translate, `batch_size` in each call."""

    sentences: tuple[str, ...]
    batch_size: int
    search: SearchOptions
    engine: EngineOptions

    def load(self, path: Path) -> Translator:
        """The bundle's translator, which decodes each call as one batch."""
        translator = Translator.load(path, self.engine)
        tokens = self.batch_size * translator.limits.source_tokens
        return replace(translator, batching=Batching(tokens, self.batch_size))

    def calls(self) -> list[Sequence[str]]:
        """The sentences of each call; the last may have fewer."""
        starts = range(0, len(self.sentences), self.batch_size)
        return [self.sentences[start : start + self.batch_size] for start in starts]

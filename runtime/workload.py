"""What a measurement runs, and how: the same for every bundle and process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seq2edge.runtime.batching import Batching
from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.runner import Runner, load_runner


@dataclass(frozen=True)
class Workload:
    """Lines to translate or label, `batch_size` in each call."""

    sentences: tuple[str, ...]
    batch_size: int
    search: SearchOptions | None  # None: a bundle that labels
    engine: EngineOptions
    folder: str = ""  # that names of files in the lines are relative to

    def load(self, path: Path) -> Runner:
        """The bundle's runner, which takes each call as one batch."""
        runner = load_runner(path, self.engine)
        batching = Batching(
            self.batch_size * runner.limits.source_tokens, self.batch_size
        )
        return replace(runner, batching=batching, folder=Path(self.folder))

    def calls(self) -> list[Sequence[str]]:
        """The sentences of each call; the last may have fewer."""
        starts = range(0, len(self.sentences), self.batch_size)
        return [self.sentences[start : start + self.batch_size] for start in starts]

"""How much is decoded at once, and how many lines of a stream are read ahead."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from seq2edge.runtime.errors import ConfigError

_FIRST_WINDOW = 16  # lines; each window is twice the last, so that output begins early
_WINDOW_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Batching:
    """How much is decoded at once; memory grows with it."""

    tokens: int = 2048  # of the source, padding included
    sentences: int = 32
    lines: int = 1024  # of a stream, read ahead and sorted by length
    # Only examples of one length together: a sum over padding may round otherwise in
    # its last bit, which once in thousands of sentences shows.
    unpadded: bool = False

    def __post_init__(self) -> None:
        """Refuse a batch of nothing."""
        sizes = {"tokens": self.tokens, "sentences": self.sentences}
        faults = [
            f"{name} {value} must be at least 1"
            for name, value in (sizes | {"lines": self.lines}).items()
            if value < 1
        ]
        if faults:
            raise ConfigError(f"batching: {'; '.join(faults)}")


def batches(lengths: Sequence[int], batching: Batching) -> Iterator[list[int]]:
    """Indices of examples of about the same length, the short ones first."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = max(1, lengths[index]) * (len(batch) + 1)
        full = padded > batching.tokens or len(batch) == batching.sentences
        if batch and (
            full or (batching.unpadded and lengths[index] != lengths[batch[0]])
        ):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def windows(lines: Iterable[str], most: int) -> Iterator[list[str]]:
    """Runs of lines, growing to `most`, to be translated one run at a time.

    None has many characters unless a line has them, so that memory is bounded.
    """
    window: list[str] = []
    size, characters = min(_FIRST_WINDOW, most), 0
    for line in lines:
        window.append(line)
        characters += len(line)
        if len(window) == size or characters >= _WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
            size = min(2 * size, most)
    if window:
        yield window

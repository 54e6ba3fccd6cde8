"""Does a bundle say on this machine what it said where it was made?

Loading it checks the hashes of all files; then every example of golden.json is decoded
again, alone. Tokens and text must be the same; a score may differ by the rounding of
another processor.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seq2edge.runtime import schema
from seq2edge.runtime.bundle import Bundle, unlisted_files
from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.golden import Golden, GoldenExample
from seq2edge.runtime.runner import load_runner, replay


@dataclass(frozen=True)
class Difference:
    """An example that comes out otherwise here."""

    expected: GoldenExample
    found: GoldenExample

    def describe(self) -> str:
        """One line that says what differs."""
        example = self.expected
        pairs = {
            name: (getattr(example, name), getattr(self.found, name))
            for name in ("tokens", "text_out", "score")
        }
        parts = [
            f"{name} {expected!r}, here {found!r}"
            for name, (expected, found) in pairs.items()
            if expected != found
        ]
        return f"{example.text!r} with beam {example.beam_size}: {'; '.join(parts)}"


@dataclass(frozen=True)
class Verification:
    """What was checked, and what differs."""

    path: str
    files: int  # whose sizes and hashes are right
    bytes: int
    unlisted: tuple[str, ...]  # files that are not the bundle's: nobody checked them
    examples: int
    score_tolerance: float
    largest_score_difference: float
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether every example came out the same."""
        return not self.differences

    def text(self) -> str:
        """The result for a terminal."""
        same = self.examples - len(self.differences)
        lines = [
            f"{self.path}: {self.files} files, {self.bytes / 1e6:.2f} MB, hashes right",
            f"{same} of {self.examples} golden examples the same, the largest "
            f"difference of a score {self.largest_score_difference:.1g} "
            f"({self.score_tolerance:g} allowed)",
        ]
        if self.unlisted:
            lines.append(f"not the bundle's, unchecked: {', '.join(self.unlisted)}")
        return "\n".join([*lines, *(each.describe() for each in self.differences)])

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {"passed": self.passed, **schema.to_json(self)}


def verify(path: Path | str, options: EngineOptions | None = None) -> Verification:
    """Check a bundle's files and replay its examples; BundleError if it is damaged.

    Without options by the default ones: a tuning is none of the bundle's files.
    """
    bundle = Bundle.load(path)
    runner = load_runner(path, options or EngineOptions(), check_hashes=False)
    runner = replace(runner, folder=bundle.path)
    golden = Golden.read(bundle.path)
    pairs = [(example, replay(runner, example)) for example in golden.examples]
    return Verification(
        path=str(path),
        files=len(bundle.manifest.files),
        bytes=bundle.bytes,
        unlisted=tuple(unlisted_files(bundle)),
        examples=len(pairs),
        score_tolerance=golden.score_tolerance,
        largest_score_difference=max(
            (abs(expected.score - found.score) for expected, found in pairs),
            default=0.0,
        ),
        differences=tuple(_differences(pairs, golden.score_tolerance)),
    )


def _differences(
    pairs: list[tuple[GoldenExample, GoldenExample]], tolerance: float
) -> Iterator[Difference]:
    for expected, found in pairs:
        near = abs(expected.score - found.score) <= tolerance
        if replace(found, score=expected.score) != expected or not near:
            yield Difference(expected, found)

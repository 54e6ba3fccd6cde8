"""What `seq2edge translate` is asked beside the search, of each line."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from seq2edge.commands.options import F
from seq2edge.commands.search_options import ids_of, option

if TYPE_CHECKING:
    from seq2edge.runtime.branches import Branch
    from seq2edge.runtime.guide import Prefix
    from seq2edge.runtime.monitor import Number
    from seq2edge.runtime.options import SearchOptions
    from seq2edge.runtime.translator import Translation, Translator


_LINE = "Of each line"

_OPTIONS = [
    option(_LINE, "--prefix", metavar="TEXT", help="Every translation begins with it."),
    option(_LINE, "--prefix-ids", metavar="IDS", help="The same as target ids."),
    option(
        _LINE,
        "--prefix-bias",
        type=click.FloatRange(0, 1, max_open=True),
        help="Prefer the prefix by so much, and no longer force it.",
    ),
    option(
        _LINE,
        "--alternatives",
        type=click.IntRange(1),
        metavar="N",
        help="The N likeliest tokens behind the prefix, each gone on with: rank, "
        "log-probability of the token, score, text.",
    ),
    option(
        _LINE,
        "--deadline-ms",
        type=click.FloatRange(0, min_open=True),
        help="After so long the best so far is the result (of the lines read ahead, "
        "which is one unless --read-ahead says otherwise).",
    ),
    option(
        _LINE,
        "--stream-tokens",
        is_flag=True,
        help="Print each token when it is certain: line, piece of it, sample (all from "
        "0), token, TAB between them; then the result.",
    ),
    option(
        _LINE,
        "--alignment",
        "align",
        is_flag=True,
        help="Add which word of the source (from 0) each word comes from: TAB 0-0 1-2.",
    ),
    option(
        _LINE,
        "--replace-unknowns",
        is_flag=True,
        help="Put the source's piece in place of an unknown token.",
    ),
    option(
        _LINE,
        "--token-scores",
        is_flag=True,
        help="Add each token's log-probability to --json.",
    ),
]


def asked_options(command: F) -> F:
    """The options that `Asked` holds."""
    for each in reversed(_OPTIONS):
        command = each(command)
    return command


@dataclass(frozen=True)
class Asked:
    """These options, checked."""

    as_json: bool
    n_best: int
    prefix: str | None
    prefix_ids: str | None
    prefix_bias: float | None
    alternatives: int | None
    deadline_ms: float | None
    stream_tokens: bool
    align: bool
    replace_unknowns: bool
    token_scores: bool

    @classmethod
    def take(cls, given: dict[str, Any], **more: Any) -> "Asked":
        """Take these options out of all that were given; the search has the rest."""
        names = [one.name for one in fields(cls) if one.name not in more]
        return cls(**{name: given.pop(name) for name in names}, **more)

    def __post_init__(self) -> None:
        """Refuse what can't be had together: wrong usage."""
        if self.prefix is not None and self.prefix_ids is not None:
            raise click.UsageError("give --prefix or --prefix-ids, not both")
        if self.prefix_bias and not self.has_prefix:
            raise click.UsageError("--prefix-bias needs --prefix or --prefix-ids")
        if self.token_scores and not self.as_json:
            raise click.UsageError("--token-scores are printed by --json alone")
        if self.alternatives is not None and (others := self._beside_alternatives()):
            raise click.UsageError(f"--alternatives goes without {', '.join(others)}")

    def _beside_alternatives(self) -> list[str]:
        given = {
            "--n-best": self.n_best > 1,
            "--prefix-bias": bool(self.prefix_bias),
            "--deadline-ms": self.deadline_ms is not None,
            "--stream-tokens": self.stream_tokens,
            "--alignment": self.align,
            "--replace-unknowns": self.replace_unknowns,
            "--token-scores": self.token_scores,
        }
        return [name for name, there in given.items() if there]

    @property
    def has_prefix(self) -> bool:
        """Whether there is anything to begin with."""
        return bool(self.prefix or self.prefix_ids)

    @property
    def at_once(self) -> bool:
        """Whether a line must not wait for others."""
        return self.stream_tokens or self.deadline_ms is not None

    def the_prefix(self) -> "Prefix":
        """As the translator takes it."""
        if self.prefix_ids is not None:
            return ids_of(self.prefix_ids, "--prefix-ids")
        return self.prefix or ""

    def worker(
        self, translator: "Translator", options: "SearchOptions"
    ) -> Callable[[list[str]], "list[Translation]"]:
        """Translates window after window; lines are numbered throughout."""
        from seq2edge.runtime.guide import Guide
        from seq2edge.runtime.monitor import Watch

        tell = self._teller(translator) if self.stream_tokens else None
        watch = Watch(tell, self.deadline_ms) if self.at_once else None
        prefix, done = self.the_prefix(), 0

        def work(lines: list[str]) -> "list[Translation]":
            nonlocal done
            prefixes = [prefix] * len(lines) if prefix else ()
            guide = Guide(prefixes, range(done, done + len(lines)), watch)
            done += len(lines)
            return translator.translate_batch(
                lines, options, self.align, self.replace_unknowns, guide
            )

        return work

    def show(self, translation: "Translation", milliseconds: float) -> str:
        """As it is printed."""
        from seq2edge.translations import json_line, plain_lines

        if self.as_json:
            return json_line(translation, milliseconds, self.token_scores)
        return "\n".join(plain_lines(translation, self.n_best))

    def _teller(self, translator: "Translator") -> Callable[["Number", int], None]:
        def tell(number: "Number", token: int) -> None:
            [piece] = translator.pieces([token])
            if self.as_json:
                record = {**number._asdict(), "token": piece}
                print(json.dumps(record, ensure_ascii=False), flush=True)
            else:
                print(*number, piece, sep="\t", flush=True)

        return tell


def print_alternatives(
    translator: "Translator",
    options: "SearchOptions",
    asked: Asked,
    lines: Iterable[str],
) -> None:
    """For each line its alternatives, the likeliest first."""
    assert asked.alternatives is not None
    prefix = asked.the_prefix()
    for line in lines:
        began = time.perf_counter()
        found = translator.alternatives(line, prefix, asked.alternatives, options)
        milliseconds = 1000 * (time.perf_counter() - began)
        if asked.as_json:
            print(_branches_json(found, milliseconds), flush=True)
            continue
        for rank, one in enumerate(found, start=1):
            score, text = one.translation.score, one.translation.text
            print(f"{rank}\t{one.log_prob:.4f}\t{score:.4f}\t{text}", flush=True)


def _branches_json(found: "Sequence[Branch]", milliseconds: float) -> str:
    records = [
        {
            "token": one.token,
            "log_prob": round(one.log_prob, 6),
            "text": one.translation.text,
            "tokens": one.translation.tokens,
            "score": round(one.translation.score, 6),
            "flags": asdict(one.translation.flags),
        }
        for one in found
    ]
    record = {"alternatives": records, "milliseconds": round(milliseconds, 3)}
    return json.dumps(record, ensure_ascii=False)

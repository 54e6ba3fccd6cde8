"""The options of commands that decode, in groups, and the search that they mean."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from seq2edge.commands.options import F

if TYPE_CHECKING:
    from seq2edge.runtime.options import SearchOptions
    from seq2edge.runtime.translator import Translator


_EARLY_STOPPING = {"yes": True, "no": False, "never": "never"}


class GroupedOption(click.Option):
    """An option that help shows under a heading of its group."""

    def __init__(self, *arguments: Any, group: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help has a section for each group, after the other options."""

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the sections in the order in which their first options come."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                group = getattr(parameter, "group", "Options")
                sections.setdefault(group, []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def option(group: str, *names: str, **attributes: Any) -> Callable[[F], F]:
    """An option of a group; without a value on the command line it is None."""
    return click.option(*names, cls=GroupedOption, group=group, **attributes)


def _number(
    group: str, *names: str, least: float, **attributes: Any
) -> Callable[[F], F]:
    kind = click.IntRange(least) if isinstance(least, int) else click.FloatRange(least)
    return option(group, *names, type=kind, **attributes)


_SEARCH, _WRITTEN, _SAMPLING = "Search", "What may be written", "Sampling"

# A name is that of the field of SearchOptions, but for those that search_of reads.
_OPTIONS = [
    _number(
        _SEARCH,
        "--beam-size",
        least=1,
        help="1 is greedy [default: the bundle's own, as of all of these].",
    ),
    _number(
        _SEARCH,
        "--length-penalty",
        least=0.0,
        help="Alpha; 0 ranks by log-probability.",
    ),
    option(
        _SEARCH,
        "--length-normalization",
        type=click.Choice(["gnmt", "power"]),
        help="Divide by ((5 + length) / 6) ** alpha, or by length ** alpha.",
    ),
    _number(
        _SEARCH,
        "--coverage-penalty",
        least=0.0,
        help="Beta; leaving parts of the source unread costs. Needs attention.",
    ),
    option(
        _SEARCH,
        "--beam-rule",
        type=click.Choice(["narrowing", "transformers"]),
        help="When a beam ends: exactly, or as Hugging Face's generate does.",
    ),
    option(
        _SEARCH,
        "--early-stopping",
        type=click.Choice([*_EARLY_STOPPING]),
        help="Of the rule transformers.",
    ),
    _number(
        _SEARCH, "--min-length", least=0, help="Target tokens before the end may come."
    ),
    _number(
        _SEARCH, "--max-length", least=1, help="Target tokens, the end token included."
    ),
    _number(
        _SEARCH,
        "--length-ratio",
        least=0.0,
        help="Without --max-length: so many times the source's, and some more.",
    ),
    _number(
        _WRITTEN,
        "--repetition-penalty",
        least=0.0,
        help="Above 1, what was written already scores less.",
    ),
    _number(
        _WRITTEN,
        "--no-repeat-ngram",
        "no_repeat_ngram_size",
        least=0,
        help="No sequence of so many tokens comes twice; 0: they may.",
    ),
    option(
        _WRITTEN,
        "--suppress",
        multiple=True,
        metavar="TEXT",
        help="Never write the tokens of this text one behind the other.",
    ),
    option(
        _WRITTEN,
        "--suppress-ids",
        multiple=True,
        metavar="IDS",
        help='The same of target ids, "17" or "4 5 6".',
    ),
    option(
        _WRITTEN,
        "--allow-unknown",
        is_flag=True,
        default=None,
        help="The unknown token may be written.",
    ),
    option(
        _SAMPLING,
        "--sample",
        "sampling",
        is_flag=True,
        default=None,
        help="Draw tokens by their probability instead of searching.",
    ),
    _number(
        _SAMPLING,
        "--temperature",
        least=0.0,
        help="Below 1 prefers what is likely.",
    ),
    _number(_SAMPLING, "--top-k", least=0, help="Of so many likeliest; 0: of all."),
    _number(
        _SAMPLING,
        "--top-p",
        least=0.0,
        help="Of the fewest that have this share of the probability.",
    ),
    _number(
        _SAMPLING,
        "--seed",
        least=0,
        help="Another one draws others; a line's samples don't depend on other lines.",
    ),
]


def search_options(command: F) -> F:
    """The options of commands that decode."""
    for each in reversed(_OPTIONS):
        command = each(command)
    return command


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given on the command line."""
    return {
        name: value
        for name, value in options.items()
        if value is not None and value != ()
    }


def search_of(
    translator: "Translator", given: Mapping[str, Any], **more: Any
) -> "SearchOptions":
    """The bundle's own search with what was given."""
    from seq2edge.runtime.guide import target_ids

    changes = given_of({**given, **more})
    if changes.get("sampling") and "beam_size" in changes:
        raise click.UsageError(
            "--sample draws instead of searching: leave out --beam-size; "
            "--n-best says how many samples"
        )
    if "early_stopping" in changes:
        changes["early_stopping"] = _EARLY_STOPPING[changes["early_stopping"]]
    texts, ids = changes.pop("suppress", ()), changes.pop("suppress_ids", ())
    suppressed = [
        *translator.defaults.suppressed,
        *(tuple(target_ids(translator, text)) for text in texts),
        *(ids_of(one, "--suppress-ids") for one in ids),
    ]
    changes["suppressed"] = tuple(dict.fromkeys(suppressed))
    return dataclasses.replace(translator.defaults, **changes)


def ids_of(text: str, name: str) -> tuple[int, ...]:
    """The numbers of "4 5 6"."""
    try:
        return tuple(int(number) for number in text.split())
    except ValueError:
        raise click.UsageError(
            f"{name} takes ids with spaces between them, not {text!r}"
        ) from None

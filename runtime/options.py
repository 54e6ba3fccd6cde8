"""How to decode: every option of the search, with where it comes from.

A bundle's manifest and a checkpoint hold one of these as the search that its model was
evaluated with; the fields are the JSON. docs/decoding.md has the same as a table, with
the names that Hugging Face transformers and CTranslate2 use.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from seq2edge.runtime.errors import ConfigError

BeamRule = Literal["narrowing", "transformers"]
Normalization = Literal["gnmt", "power"]


@dataclass(frozen=True)
class SearchOptions:
    """How to decode; lengths are in target tokens, the end token among them."""

    beam_size: int = 4  # 1 is greedy search; sampling needs none
    length_penalty: float = 0.6  # alpha; 0 ranks by plain log-probability
    n_best: int = 1
    min_length: int = 0  # tokens before the end token may come
    max_length: int | None = None  # None: by the length of the source
    length_ratio: float = 2.0  # max_length is ratio * source + constant, and stops a
    length_constant: int = 10  # model that repeats itself; what is right is shorter
    # narrowing: an ended hypothesis gives up its place, and the search is exact about
    # when to stop. transformers: as Hugging Face's generate (4.57) does it.
    beam_rule: BeamRule = "narrowing"
    early_stopping: bool | Literal["never"] = False  # of the rule transformers
    # gnmt: ((5 + length) / 6) ** alpha, arXiv:1609.08144; power: length ** alpha.
    # None: gnmt, and power under the rule transformers, as it has it.
    length_normalization: Normalization | None = None
    coverage_penalty: float = 0.0  # beta of arXiv:1609.08144; needs attention

    repetition_penalty: float = 1.0  # above 1 penalizes; arXiv:1909.05858, section 4.1
    no_repeat_ngram_size: int = 0  # 0: n-grams may come again
    suppressed: tuple[tuple[int, ...], ...] = ()  # tokens and sequences never written
    allow_unknown: bool = False  # whether the unknown token may be written
    allow_special: bool = False  # and padding and start, where those aren't the end
    forced_first: int | None = None  # the first token, e.g. that of a language
    forced_end: bool = False  # at the maximal length nothing but the end may come
    # beta of arXiv:1912.03393, section 4.2: a given prefix is preferred by so much, and
    # no longer forced. 0 forces it.
    prefix_bias: float = 0.0

    sampling: bool = False  # draw tokens, n_best times over, instead of searching
    temperature: float = 1.0  # below 1 prefers what is likely
    top_k: int = 0  # draw from so many of the most probable tokens; 0: from all
    top_p: float = 1.0  # and from the fewest that have this share; arXiv:1904.09751
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what can't be meant, with all that is wrong."""
        faults = [*_range_faults(self), *_choice_faults(self), *_contradictions(self)]
        if faults:
            raise ConfigError("; ".join(faults))

    @property
    def normalization(self) -> Normalization:
        """The length normalization that is meant."""
        usual: Normalization = "gnmt" if self.beam_rule == "narrowing" else "power"
        return self.length_normalization or usual

    @property
    def like_transformers(self) -> bool:
        """Whether transformers' rule is followed, in greedy search and sampling too."""
        return self.beam_rule == "transformers"

    def with_beam(self, beam_size: int) -> "SearchOptions":
        """The same as a search for the one best result, of another width."""
        return replace(
            self,
            beam_size=beam_size,
            n_best=1,
            sampling=False,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            seed=0,
        )


def _range_faults(options: SearchOptions) -> Iterator[str]:
    """Numbers outside of their range; NaN is outside of any."""
    least = {"beam_size": 1, "n_best": 1, "length_penalty": 0}
    least |= {"min_length": 0, "max_length": 1, "length_ratio": 0, "length_constant": 1}
    least |= {"coverage_penalty": 0, "no_repeat_ngram_size": 0, "forced_first": 0}
    least |= {"top_k": 0, "seed": 0}
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and not bound <= value < math.inf:
            yield f"{name} {value} must be at least {bound}"
    for name in ("repetition_penalty", "temperature"):
        if not 0 < (value := getattr(options, name)) < math.inf:
            yield f"{name} {value} must be above 0"
    if not 0 < options.top_p <= 1:
        yield f"top_p {options.top_p} must be above 0 and at most 1"
    if not 0 <= options.prefix_bias < 1:
        yield f"prefix_bias {options.prefix_bias} must be at least 0 and below 1"
    if any(not ids or min(ids) < 0 for ids in options.suppressed):
        yield "suppressed must hold sequences of one token or more, none negative"


def _choice_faults(options: SearchOptions) -> Iterator[str]:
    """Names that aren't among the known ones."""
    known = {
        "beam_rule": get_args(BeamRule),
        "early_stopping": (True, False, "never"),
        "length_normalization": (None, *get_args(Normalization)),
    }
    for name, choices in known.items():
        if (value := getattr(options, name)) not in choices:
            yield f"{name} {value!r} is none of {', '.join(map(str, choices))}"


def _contradictions(options: SearchOptions) -> Iterator[str]:
    """What can't be had together."""
    beam_size, n_best, longest = options.beam_size, options.n_best, options.max_length
    if n_best > beam_size >= 1 and not options.sampling:
        yield (
            f"n_best {n_best} is above beam_size {beam_size}; "
            "widen the beam or ask for fewer"
        )
    if longest is not None and options.min_length > longest >= 1:
        yield f"min_length {options.min_length} is above max_length {longest}"
    if options.early_stopping is not False and not options.like_transformers:
        yield "early_stopping is for the beam_rule transformers; narrowing is exact"
    if options.coverage_penalty and (options.like_transformers or options.sampling):
        yield "coverage_penalty is for the beam_rule narrowing, without sampling"
    usual = {"temperature": 1, "top_k": 0, "top_p": 1, "seed": 0}
    idle = [name for name, value in usual.items() if getattr(options, name) != value]
    if idle and not options.sampling:
        yield f"only sampling, which is off, has a use for {', '.join(idle)}"

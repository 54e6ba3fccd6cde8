"""A profile as a table for the terminal."""

from collections.abc import Iterator, Sequence

from seq2edge.runtime.operators import Operator
from seq2edge.runtime.profiling import Profile, Report, Spread
from seq2edge.runtime.tuning import Setting

_LABEL = 22  # columns
_NUMBER = 10
_WIDE = 4 * _NUMBER  # a bundle's four numbers


def profile_table(report: Report) -> str:
    """The whole report as text, a bundle beside the other."""
    return "\n".join(
        [
            *_heading(report),
            "",
            *_timings(report),
            "",
            *_figures(report.profiles),
            *_operators(report.profiles),
        ]
    )


def _heading(report: Report) -> Iterator[str]:
    machine, options = report.machine, report.options
    instructions = f" ({', '.join(machine.instructions)})" * bool(machine.instructions)
    yield (
        f"{machine.processor}{instructions}, {machine.cores} cores; "
        f"onnxruntime {machine.versions['onnxruntime']}, Python {machine.python}"
    )
    if machine.load_average is not None:
        yield f"Load average when it began {machine.load_average:.1f}"
    search = ""
    if report.beam_size is not None:
        search = f"; beam {report.beam_size}, length penalty {report.length_penalty:g}"
    yield (
        f"{report.sentences} sentences, {options.batch_size} a call, "
        f"{options.repeat} times{search}"
    )
    yield (
        f"Not counted: the first call and {report.warm_up_calls} more to warm up; "
        "loading."
    )
    for letter, profile in _lettered(report.profiles):
        yield (
            f"{letter}: {profile.name} {profile.precision}, {profile.path}, "
            f"{Setting.of(profile.engine).text}"
        )


def _timings(report: Report) -> Iterator[str]:
    what = "sentence" if report.options.batch_size == 1 else "call"
    bundles = [profile.timings for profile in report.profiles]
    yield " " * _LABEL + "".join(
        f"{letter:>{_WIDE}}" for letter, _ in _lettered(report.profiles)
    )
    columns = "".join(f"{n:>{_NUMBER}}" for n in ("median", "p90", "p99", "share"))
    yield f"{f'ms a {what}':<{_LABEL}}" + columns * len(bundles)
    for parts in zip(*(timings.parts for timings in bundles), strict=True):
        yield _row(parts[0].name, [(part.spread, part.share) for part in parts])
    yield _row("whole", [(timings.whole, 1) for timings in bundles])
    for label, spreads in (
        ("one step", [timings.one_step for timings in bundles]),
        ("first token", [timings.first_token for timings in bundles]),
    ):
        if all(spreads):
            yield _row(label, [(spread, None) for spread in spreads if spread])
    for letter, profile in _lettered(report.profiles):
        share = profile.timings.accounted_share
        yield f"{letter}: the parts add up to {share:.1%} of the whole"


def _row(label: str, bundles: Sequence[tuple[Spread, float | None]]) -> str:
    cells = []
    for spread, share in bundles:
        times = (spread.median_ms, spread.p90_ms, spread.p99_ms)
        cells += [f"{ms:>{_NUMBER}.3f}" for ms in times]
        cells.append(" " * _NUMBER if share is None else f"{share:>{_NUMBER}.1%}")
    return (f"{label:<{_LABEL}}" + "".join(cells)).rstrip()


def _figures(profiles: Sequence[Profile]) -> Iterator[str]:
    header = "".join(f"{letter:>{_NUMBER}}" for letter, _ in _lettered(profiles))
    yield " " * _LABEL + header + (f"{'B / A':>{_NUMBER}}" * (len(profiles) == 2))
    for label, digits, values in _figure_rows(profiles):
        cells = [
            f"{'-' if v is None else f'{v:.{digits}f}':>{_NUMBER}}" for v in values
        ]
        if len(values) == 2 and values[0] and values[1] is not None:
            cells.append(f"{values[1] / values[0]:>{_NUMBER}.2f}")
        yield f"{label:<{_LABEL}}" + "".join(cells)


def _figure_rows(
    profiles: Sequence[Profile],
) -> Iterator[tuple[str, int, list[float | None]]]:
    """Label, digits after the point, a value of each bundle."""
    timings = [profile.timings for profile in profiles]
    memories = [profile.memory for profile in profiles]
    yield "sentences a second", 1, [each.sentences_per_second for each in timings]
    yield "tokens a second", 1, [each.tokens_per_second for each in timings]
    yield "load, ms", 1, [profile.load_ms for profile in profiles]
    yield "first call, ms", 1, [profile.first_call_ms for profile in profiles]
    yield "bundle, MB", 2, [profile.bundle_bytes / 1e6 for profile in profiles]
    yield "steady memory, MB", 1, [_megabytes(each.now_bytes) for each in memories]
    yield "peak memory, MB", 1, [_megabytes(each.peak_bytes) for each in memories]


def _operators(profiles: Sequence[Profile]) -> Iterator[str]:
    for letter, profile in _lettered(profiles):
        yield ""
        yield f"{letter}: the operators that cost most, by onnxruntime's own profile"
        for label, operators in (
            ("encoder", profile.encoder_operators),
            ("step", profile.step_operators),
        ):
            if not operators:
                continue
            yield f"{label:<{_LABEL}}{'share':>{_NUMBER}}{'us a call':>{_NUMBER}}  node"
            for operator in operators:
                yield _operator_row(operator)


def _operator_row(operator: Operator) -> str:
    a_call = operator.total_us / operator.calls
    return (
        f"{'  ' + operator.kind:<{_LABEL}}{operator.share:>{_NUMBER}.1%}"
        f"{a_call:>{_NUMBER}.1f}  {operator.node}"
    )


def _megabytes(size: int | None) -> float | None:
    return None if size is None else size / 1e6


def _lettered(profiles: Sequence[Profile]) -> Iterator[tuple[str, Profile]]:
    for index, profile in enumerate(profiles):
        yield chr(ord("A") + index), profile

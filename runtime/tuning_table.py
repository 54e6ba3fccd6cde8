"""A tuning as a table for the terminal."""

from collections.abc import Iterator

from seq2edge.runtime.tuning import Trial, Tuning, Work

_NUMBER = 15  # columns


def tuning_table(tuning: Tuning) -> str:
    """Every setting that was tried, and why it was kept or not."""
    return "\n".join([*_heading(tuning), "", *_rows(tuning)])


def _heading(tuning: Tuning) -> Iterator[str]:
    device, work = tuning.device, tuning.work
    yield (
        f"{device.processor}, {device.cores} core{'s' * (device.cores > 1)}; "
        f"onnxruntime {device.onnxruntime}"
    )
    beam = "" if work.beam_size is None else f"; beam {work.beam_size}"
    sentences = f"{work.sentences} sentence{'s' * (work.sentences > 1)}"
    yield f"{sentences}, {work.batch_size} a call, {work.rounds} rounds{beam}"


def _rows(tuning: Tuning) -> Iterator[str]:
    width = max(len(trial.setting.text) for trial in tuning.trials) + 2
    titles = (f"ms a {_call(tuning.work)}", "/ default")
    yield f"{'setting':<{width}}" + "".join(f"{one:>{_NUMBER}}" for one in titles)
    for trial in tuning.trials:
        yield f"{trial.setting.text:<{width}}{_numbers(trial)}  {_verdict(trial)}"


def _call(work: Work) -> str:
    return "sentence" if work.batch_size == 1 else "call"


def _numbers(trial: Trial) -> str:
    cells = ("-", "-")
    if trial.median_ms is not None and trial.ratio is not None:
        cells = (f"{trial.median_ms:.3f}", f"{trial.ratio:.2f}")
    return "".join(f"{cell:>{_NUMBER}}" for cell in cells)


def _verdict(trial: Trial) -> str:
    if trial.median_ms is None:
        return f"refused: {trial.why}"
    return f"{'kept' if trial.kept else 'not kept'}: {trial.why}"

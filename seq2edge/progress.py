"""Progress on standard error: a bar on a terminal, JSON lines otherwise."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

Event = dict[str, Any]


class TrainingProgress:
    """Shows the events of a training run as they come."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._first_step = 0

    def __call__(self, event: Event) -> None:
        """Print one event."""
        if not self._terminal:
            click.echo(json.dumps(event, ensure_ascii=False), err=True)
        elif event["event"] == "step":
            click.echo(f"\r\033[K{self._bar(event)}", nl=False, err=True)
        else:
            facts = [f"{key} {value}" for key, value in event.items() if key != "event"]
            click.echo(f"\r\033[K{event['event']}: {', '.join(facts)}", err=True)
            if event["event"] in ("model", "resume"):
                self._began = time.monotonic()
                self._first_step = event.get("step", 0)

    def _bar(self, event: Event) -> str:
        step, steps = event["step"], event["steps"]
        done = int(30 * step / steps)
        pace = (time.monotonic() - self._began) / max(step - self._first_step, 1)
        minutes = pace * (steps - step) / 60
        return (
            f"[{'#' * done}{'.' * (30 - done)}] {step}/{steps} "
            f"loss {event['loss']:.3f}, {event['tokens_per_second']} tokens/s, "
            f"{minutes:.0f} min left"
        )


@contextmanager
def stages() -> Iterator[Any]:
    """Yields a function that notes the stage a command is in."""
    began = time.monotonic()

    def note(stage: str) -> None:
        click.echo(f"[{time.monotonic() - began:6.1f} s] {stage}", err=True)

    yield note

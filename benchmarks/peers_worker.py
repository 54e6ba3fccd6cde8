"""A contender in a process of its own, started by peers_process.py.

    python benchmarks/peers_worker.py MODULE.CLASS FOLDER THREADS

Says that it is ready, then answers each line of standard input: JSON both ways.
Between two requests it sleeps in `read`. What libraries print goes to standard error.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO


def load(name: str, folder: str, threads: str) -> Any:
    """The contender of that name."""
    module, _, kind = name.rpartition(".")
    return getattr(importlib.import_module(module), kind)(Path(folder), int(threads))


def answer(contender: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Translate batch after batch; the seconds are of that alone."""
    batches = [contender.prepare(batch) for batch in request["batches"]]
    used, began = time.process_time(), time.perf_counter()
    results = [contender.translate(batch, request["beam"]) for batch in batches]
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "tokens": [row for result in results for row in contender.tokens(result)],
    }


def _take_standard_output() -> TextIO:
    """Answers alone go there; what else is printed must not come between them."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Load, then serve until standard input ends."""
    answers = _take_standard_output()
    contender = load(*sys.argv[1:])
    print(json.dumps({"details": contender.details}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(contender, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""The memory that translating takes: measured in a process that does nothing else.

Run as a module this is that process: the path of a bundle and a workload come in on
standard input, the memory after the last call goes out.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from seq2edge.runtime import schema
from seq2edge.runtime.errors import Seq2EdgeError
from seq2edge.runtime.resources import Memory, resident_memory
from seq2edge.runtime.runner import run
from seq2edge.runtime.workload import Workload


@dataclass(frozen=True)
class Request:
    """What the process is told."""

    path: str
    workload: Workload


def measure_footprint(path: Path, workload: Workload) -> Memory:
    """Translate everything once in a new process; its memory then, and its peak."""
    request = schema.to_json(Request(str(path), workload))
    process = subprocess.run(
        [sys.executable, "-m", "seq2edge.runtime.footprint"],
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if process.returncode:
        reason = process.stderr.strip().splitlines() or [
            f"it ended {process.returncode}"
        ]
        raise Seq2EdgeError(f"{path}: its memory can't be measured: {reason[-1]}")
    return schema.parse(Memory, json.loads(process.stdout))


def main() -> None:
    """Be that process."""
    request = schema.parse(Request, json.load(sys.stdin))
    runner = request.workload.load(Path(request.path))
    for texts in request.workload.calls():
        run(runner, texts, request.workload.search)
    print(json.dumps(schema.to_json(resident_memory())))


if __name__ == "__main__":
    main()

"""The memory that translating takes: measured in a process that does nothing else.

Run as a module this is that process: the path of a bundle and a workload come in on
standard input, the memory after the last call goes out; of null, that before any
bundle.
"""

import json
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from seq2edge.runtime import schema
from seq2edge.runtime.child import ask_process
from seq2edge.runtime.resources import Memory, resident_memory
from seq2edge.runtime.runner import run
from seq2edge.runtime.workload import Workload

# Of a bare process where the system doesn't tell: Linux on x86-64, Python 3.11.
BARE_BYTES = 60_000_000


@dataclass(frozen=True)
class Request:
    """What the process is told."""

    path: str
    workload: Workload


def measure_bare_process() -> int:
    """What a new process holds that has all imported and no bundle loaded."""
    memory = _in_new_process("null", "a bare process")
    return memory.now_bytes or memory.peak_bytes or BARE_BYTES


def measure_footprint(path: Path, workload: Workload) -> Memory:
    """Translate everything once in a new process; its memory then, and its peak."""
    request = schema.to_json(Request(str(path), workload))
    return _in_new_process(json.dumps(request), str(path))


def _in_new_process(request: str, name: str) -> Memory:
    fault = f"{name}: its memory can't be measured"
    answer = ask_process("seq2edge.runtime.footprint", request, fault)
    return schema.parse(Memory, json.loads(answer))


def main() -> None:
    """Be that process."""
    value = json.load(sys.stdin)
    if value is None:
        import_module("seq2edge.runtime.tokenizer")
    else:
        request = schema.parse(Request, value)
        runner = request.workload.load(Path(request.path))
        for texts in request.workload.calls():
            run(runner, texts, request.workload.search)
    print(json.dumps(schema.to_json(resident_memory())))


if __name__ == "__main__":
    main()

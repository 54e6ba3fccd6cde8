"""The other end of peers_worker.py: a contender's process, asked and watched."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from installed import environment

Ids = list[list[int]]
WORKER = Path(__file__).with_name("peers_worker.py")
# Every library that starts threads is told how many; MKL and OpenMP are in several.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Entry:
    """A contender by name, and how its worker is started."""

    name: str
    kind: str  # module.Class
    folder: Path
    model_files: tuple[str, ...]  # patterns of the files with graphs and weights
    exact: str | None = None  # who has the same model in fp32, if this isn't it

    @property
    def model_bytes(self) -> int:
        """Graphs and weights on disk."""
        files = {file for one in self.model_files for file in self.folder.glob(one)}
        return sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class Answer:
    """What a worker says of its work."""

    seconds: float
    cpu_seconds: float  # of all its threads
    tokens: Ids


@dataclass(frozen=True)
class Resident:
    """Memory of a process, mapped files included."""

    now_bytes: int
    peak_bytes: int  # since the process began, or the peak was forgotten


class Worker:
    """A contender's process; a context manager, which ends it."""

    def __init__(self, entry: Entry, threads: int, log: Path) -> None:
        self._entry, self._log = entry, log
        told = dict.fromkeys(THREAD_VARIABLES, str(threads))
        command = [sys.executable, str(WORKER), entry.kind, str(entry.folder)]
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*command, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment() | told,
                text=True,
                encoding="utf-8",
            )

    def ready(self) -> dict[str, str]:
        """Wait until the contender has loaded; its settings."""
        details: dict[str, str] = self._read()["details"]
        return details

    def translate(self, batches: Sequence[Ids], beam: int) -> Answer:
        """Have the batches translated one after the other."""
        assert self._process.stdin
        line = json.dumps({"batches": batches, "beam": beam})
        print(line, file=self._process.stdin, flush=True)
        return Answer(**self._read())

    def resident(self) -> Resident:
        """What Linux says of the process's memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        found = dict(line.split(":", 1) for line in status.splitlines())
        now, peak = (1024 * int(found[x].split()[0]) for x in ("VmRSS", "VmHWM"))
        return Resident(now, peak)

    def forget_peak(self) -> None:
        """The peak is what is resident now; see proc(5), clear_refs."""
        path = Path(f"/proc/{self._process.pid}/clear_refs")
        path.write_text("5", encoding="ascii")

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._entry.name} ended; see {self._log}")
        read: dict[str, Any] = json.loads(line)
        return read

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        if error is not None:
            self._process.kill()
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

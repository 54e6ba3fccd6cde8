"""UTF-8 text from and to files, with clear errors."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from seq2edge.runtime.errors import InputError, OutputError

_BYTE_ORDER_MARK = "\ufeff"


def decode_lines(lines: Iterable[bytes], origin: str, errors: str) -> Iterator[str]:
    """Text of each line without its end; errors: "strict" or "replace"."""
    for number, line in enumerate(lines, start=1):
        try:
            text = line.rstrip(b"\r\n").decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{origin}, line {number}: invalid UTF-8 (byte {error.start + 1} is "
                f"0x{line[error.start]:02x}); mend it or pass --errors replace"
            ) from None
        yield text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text


def read_lines(path: Path) -> list[str]:
    """All lines of a file; InputError names what is wrong."""
    try:
        with path.open("rb") as file:
            return list(decode_lines(file, str(path), "strict"))
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all; OutputError if it can't be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}") from None

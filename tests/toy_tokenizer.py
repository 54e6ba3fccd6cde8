"""What most toy tokenizers lack: nobody scores or aligns with them."""

from typing import NoReturn


class ReadsOnly:
    """A base of tokenizers that read sources and write targets, and no more."""

    def encode_target(self, text: str) -> NoReturn:
        raise AssertionError(f"this toy reads no target: {text!r}")

    def source_pieces(self, text: str) -> NoReturn:
        raise AssertionError(f"this toy has no pieces: {text!r}")

"""Who translates in peers.py: each behind the same three calls.

A contender imports its libraries when it is made, so that a process loads only what
it needs. `prepare` and `tokens` are not timed: ids to what its library reads, and back.
Each has a translator's usual settings, and the search that the model asks for, but that
a beam ends for all of them as it does in CTranslate2: when as many translations have
ended as it is wide, or at LONGEST tokens. transformers' default goes on, for sentences
without a good end to their limit, and then no two contenders do the same work.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

Ids = list[list[int]]
LONGEST = 64  # tokens that are written at most


class Contender(Protocol):
    """Made of a folder and a number of threads."""

    details: dict[str, str]  # settings worth telling

    def prepare(self, sources: Ids) -> Any:
        """A batch as the library takes it; ids have their end token."""
        ...

    def translate(self, prepared: Any, beam: int) -> Any:
        """The work that is timed."""
        ...

    def tokens(self, results: Any) -> Ids:
        """The translations' ids, without start, end and padding."""
        ...


class Seq2edge:
    """A bundle, loaded as a user does: hashes checked, and with its tokenizer."""

    def __init__(self, folder: Path, threads: int) -> None:
        from seq2edge.runtime.engine import EngineOptions
        from seq2edge.runtime.translator import Translator

        self.translator = Translator.load(folder, EngineOptions(threads=threads))
        rule: str = self.translator.defaults.beam_rule
        self.details = {"beam rule": rule}

    def prepare(self, sources: Ids) -> Ids:
        """Ids as they are."""
        return sources

    def translate(self, prepared: Ids, beam: int) -> Any:
        """The bundle's own search, with this beam, that ends as CTranslate2's does."""
        options = self.translator.defaults.with_beam(beam)
        options = replace(options, max_length=LONGEST)
        if options.like_transformers:
            options = replace(options, early_stopping=beam > 1)
        return self.translator.generate(prepared, options)

    def tokens(self, results: Any) -> Ids:
        """Of the best hypotheses."""
        return [list(best.tokens) for best, *_ in results]


class CTranslate2:
    """A converted model; a batch is never divided."""

    def __init__(self, folder: Path, threads: int) -> None:
        import ctranslate2

        self.translator = ctranslate2.Translator(
            str(folder), device="cpu", inter_threads=1, intra_threads=threads
        )
        self.listed = (folder / "vmap.txt").is_file()
        self.details = {"compute type": self.translator.compute_type}
        if self.listed:
            self.details["vocabulary map"] = "of our shortlist"
        self.source = _pieces(folder, "source")
        self.ids = {piece: n for n, piece in enumerate(_pieces(folder, "target"))}

    def prepare(self, sources: Ids) -> list[list[str]]:
        """It reads pieces."""
        return [[self.source[token] for token in source] for source in sources]

    def translate(self, prepared: list[list[str]], beam: int) -> Any:
        """Its default search: length penalty 1."""
        return self.translator.translate_batch(
            prepared,
            beam_size=beam,
            max_decoding_length=LONGEST,
            use_vmap=self.listed,
        )

    def tokens(self, results: Any) -> Ids:
        """Pieces to ids."""
        return [[self.ids[piece] for piece in one.hypotheses[0]] for one in results]


def _pieces(folder: Path, side: str) -> list[str]:
    """The vocabulary by id; padding, Marian's last, is not among them."""
    shared, own = (folder / f"{x}_vocabulary.json" for x in ("shared", side))
    path = shared if shared.is_file() else own
    pieces: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return pieces


class Transformers:
    """PyTorch, not compiled."""

    model: Any

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM

        torch.set_num_threads(threads)
        self.model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        self.details = {"attention": self.model.config._attn_implementation}

    def prepare(self, sources: Ids) -> dict[str, Any]:
        """A padded batch and its mask."""
        import torch

        pad, longest = self.model.config.pad_token_id, max(map(len, sources))
        lengths = torch.tensor([[len(source)] for source in sources])
        rows = [source + [pad] * (longest - len(source)) for source in sources]
        return {
            "input_ids": torch.tensor(rows),
            "attention_mask": (torch.arange(longest) < lengths).long(),
        }

    def translate(self, prepared: dict[str, Any], beam: int) -> Any:
        """The search of its generation_config, with this beam and such an end."""
        import torch

        with torch.inference_mode():
            return self.model.generate(
                **prepared,
                num_beams=beam,
                do_sample=False,
                early_stopping=beam > 1,
                max_new_tokens=LONGEST,
            )

    def tokens(self, results: Any) -> Ids:
        """Without what isn't written."""
        config = self.model.generation_config
        special = {config.eos_token_id, config.pad_token_id}
        return [[t for t in row if t not in special] for row in results.tolist()]


class Optimum(Transformers):
    """transformers' search over onnxruntime, as Optimum exports and runs it."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from onnxruntime import SessionOptions
        from optimum.onnxruntime import ORTModelForSeq2SeqLM

        torch.set_num_threads(threads)
        options = SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.model = ORTModelForSeq2SeqLM.from_pretrained(
            folder, session_options=options
        )
        self.details = {"io binding": str(self.model.use_io_binding)}

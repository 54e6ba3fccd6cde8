"""The most memory that a process with a bundle is expected to hold, before it runs.

Predicted from what the parts weighed at export (`weighing`), and from the shapes in the
manifest. To weigh whole translations instead says something of those only, and a batch
of long ones takes many seconds.

    process     interpreter and libraries: of this machine, see `footprint`
    held        encoder, tokenizer and the heads that a search asks: their weights (as
                onnxruntime has them: matrices packed anew for its kernels, tables as
                mapped files) and the code of the library that they are the first to use
    at work     the encoder's tensors, then memory, states and a step's own

Of 36 works (batches of 1 to 32, greedy and beam 4 or 5, 20 to 510 tokens) of four
translators in int8 and fp32, 5.5 to 16 million parameters, the measured peak was 0.74
to 0.96 of the declared one (benchmarks/memory.py).

Letters: rows = batch * beam.
"""

import math
from dataclasses import dataclass

from seq2edge.runtime.batching import Batching
from seq2edge.runtime.manifest import ITEM_BYTES, FootprintSpec, Manifest, TensorSpec

# A state is there before a step and after it, and gathered by parents in between.
_STATES = 3
# What the arena took over what was asked of it: it grows by powers of two, and what the
# encoder or a shorter cache leaves fits little. Measured: 0.92 to 1.33.
_ARENA = 1.35
_OTHER_BYTES = 8_000_000  # Python's own objects, pages of code, malloc's holes
_SPARE = 1.05


@dataclass(frozen=True)
class Work:
    """What is decoded or labelled at once; lengths in tokens, or frames."""

    batch: int
    beam: int  # 1: greedy search, or labels
    source: int
    target: int  # 0 where labels come out

    @property
    def rows(self) -> int:
        """Hypotheses at once."""
        return self.batch * self.beam


@dataclass(frozen=True)
class Peak:
    """The declared peak of a process that does such work."""

    work: Work
    bytes: int


def declared_peaks(manifest: Manifest, process_bytes: int) -> list[Peak]:
    """Of the usual work: a sentence as long as may be, and as many as go at once."""
    if manifest.footprint is None:
        return []
    limits, most = manifest.limits, Batching()
    beam = manifest.search.beam_size if manifest.search else 1
    short = max(1, min(limits.source_tokens, most.tokens // most.sentences))
    sizes = [(1, 1, limits.source_tokens), (1, beam, limits.source_tokens)]
    sizes.append((most.sentences, beam, short))
    works = [
        Work(batch, beam, source, usual_target(manifest, source))
        for batch, beam, source in dict.fromkeys(sizes)
    ]
    return [Peak(work, peak_bytes(manifest, work, process_bytes)) for work in works]


def usual_target(manifest: Manifest, source: int) -> int:
    """As many tokens as hardly any translation of such a source has more of."""
    search, limit = manifest.search, manifest.limits.target_tokens
    if search is None:
        return 0
    usual = int(search.length_ratio * source) + search.length_constant
    return min(usual, search.max_length or limit, limit)


def peak_bytes(manifest: Manifest, work: Work, process_bytes: int) -> int:
    """The declared peak; the bundle must have been weighed."""
    footprint = manifest.footprint
    assert footprint is not None
    held = process_bytes + footprint.loaded_bytes + _head_bytes(manifest, work)
    at_work = _encoding(footprint, work) + _stepping(manifest, footprint, work)
    return round(_SPARE * held + _ARENA * at_work) + _OTHER_BYTES


def _head_bytes(manifest: Manifest, work: Work) -> int:
    """Of the heads that are loaded for such work."""
    search, footprint = manifest.search, manifest.footprint
    if search is None or footprint is None:
        return 0
    asked = ["beam"] if work.beam > 1 else ["greedy"]
    if manifest.shortlist is not None:  # of these heads, those that there are
        if work.rows == 1:
            asked = ["draft", "verify", "ahead"]
        elif work.batch == 1:
            asked.append("beam_ahead")
        asked.append("shortlist")
    if search.forced_end:  # an end that is forced comes from all scores
        asked.append("scores")
    return sum(footprint.head_bytes.get(name, 0) for name in asked)


def _encoding(footprint: FootprintSpec, work: Work) -> int:
    positions = work.batch * work.source
    pairs = positions * work.source
    return footprint.position_bytes * positions + footprint.pair_bytes * pairs


def _stepping(manifest: Manifest, footprint: FootprintSpec, work: Work) -> int:
    """Memory, states, and what a step computes with them."""
    memory = sum(_tensor_bytes(spec, work.source) for spec in manifest.memory)
    state = sum(_tensor_bytes(spec, work.target) for spec in manifest.state)
    row = footprint.row_bytes + footprint.row_source_bytes * work.source
    return work.batch * memory + work.rows * (_STATES * state + row)


def _tensor_bytes(spec: TensorSpec, length: int) -> int:
    """Of one row, each axis that varies being so long."""
    axes = [axis if isinstance(axis, int) else length for axis in spec.shape[1:]]
    return math.prod(axes) * ITEM_BYTES[spec.dtype]

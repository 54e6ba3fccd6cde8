"""A bundle in words: what `seq2edge inspect` prints."""

from collections.abc import Iterator, Mapping, Sequence

from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.footprint import measure_bare_process
from seq2edge.runtime.manifest import (
    InputSpec,
    Manifest,
    PieceTokenizerSpec,
    TensorSpec,
)
from seq2edge.runtime.memory import Peak, Work, declared_peaks
from seq2edge.runtime.tuning import find


def describe_bundle(bundle: Bundle) -> str:
    """Contract, sizes, memory, certificate and provenance of a bundle, and tunings."""
    manifest = bundle.manifest
    lines = [
        f"{manifest.name}, {_precision(manifest)}, {manifest.task}, "
        f"format {manifest.format}, {_megabytes(bundle.bytes)}",
        "",
        "files",
        *(
            f"  {name:<24}{_megabytes(entry.bytes):>10}  sha256 {entry.sha256[:12]}..."
            for name, entry in manifest.files.items()
        ),
        "",
        "contract",
        *_tensors("input", manifest.inputs),
        *_tensors("memory", manifest.memory),
        *_tensors("output", manifest.outputs),
        *_tensors("state", manifest.state),
        *_settings(manifest),
        "",
        "memory of a process at most",
        *_peaks(peaks_here(manifest)),
    ]
    lines += _tunings(bundle)
    for title in ("quantization", "certificate", "provenance"):
        if values := getattr(manifest, title):
            lines += ["", title, *_tree(values, "  ")]
    return "\n".join(lines)


def peaks_here(manifest: Manifest) -> list[Peak]:
    """The declared peaks on this machine; none if the bundle was never weighed."""
    if manifest.footprint is None:
        return []
    return declared_peaks(manifest, measure_bare_process())


def _peaks(peaks: Sequence[Peak]) -> Iterator[str]:
    if not peaks:
        yield "  not known: the bundle was exported where the system doesn't tell"
    for peak in peaks:
        yield f"  {_work(peak.work):<60}{_megabytes(peak.bytes):>10}"


def _work(work: Work) -> str:
    sentences = f"{work.batch} at once" if work.batch > 1 else "1 alone"
    if not work.target:
        return f"{sentences}, {work.source} positions"
    search = f"beam {work.beam}" if work.beam > 1 else "greedy"
    return f"{sentences}, {search}, {work.source} positions, {work.target} tokens"


def _precision(manifest: Manifest) -> str:
    target = (manifest.quantization or {}).get("target")
    return manifest.precision + (f" for {target}" if target else "")


def _tensors(role: str, specs: Sequence[InputSpec | TensorSpec]) -> Iterator[str]:
    for spec in specs:
        shape = ", ".join(str(axis) for axis in spec.shape)
        yield f"  {role:<8}{spec.name:<16}{spec.dtype} ({shape})"


def _settings(manifest: Manifest) -> Iterator[str]:
    vocabulary, limits, search = manifest.vocabulary, manifest.limits, manifest.search
    for spec in manifest.inputs:
        if spec.labels:
            yield f"  {spec.name} is one of {_names(spec.labels)}"
    if manifest.labels:
        yield f"  labels {len(manifest.labels)}: {_names(manifest.labels)}"
    if manifest.task == "tagging":
        streams = "stream" in manifest.heads
        yield f"  {'goes' if streams else 'does not go'} position by position"
    if "attention" in manifest.heads:
        yield "  shows its attention, for alignments"
    if vocabulary is not None:
        yield (
            f"  vocabulary {vocabulary.size}: padding {vocabulary.pad}, "
            f"unknown {vocabulary.unknown}, start {vocabulary.start}, "
            f"end {vocabulary.end}"
        )
    yield from _languages(manifest)
    target = f", {limits.target_tokens} target tokens" if limits.target_tokens else ""
    yield f"  limits: {limits.source_tokens} source positions at once{target}"
    if search is not None:
        penalty = search.length_penalty
        yield f"  search: beam {search.beam_size}, length penalty {penalty}"


def _tunings(bundle: Bundle) -> Iterator[str]:
    """Each tuning, where it lies and whether it applies; nothing if there is none."""
    found = [*find(bundle)]
    if found:
        yield from ("", "tuning")
    for one in found:
        applies = f"not used here: {one.obstacle}" if one.obstacle else "applies here"
        yield f"  {one.path}"
        yield f"  {one.tuning.chosen.text}; {applies}"


def _languages(manifest: Manifest) -> Iterator[str]:
    """What a multilingual model is told."""
    tokenizer = manifest.tokenizer
    if not isinstance(tokenizer, PieceTokenizerSpec) or tokenizer.languages is None:
        return
    spec = tokenizer.languages
    yield f"  languages {len(spec.tokens)}: {_names(sorted(spec.tokens))}"
    source = "" if spec.source_place == "none" else f"reads {spec.source}, "
    target = spec.target or "what >>code<< before a text says"
    yield f"  by default it {source}writes {target}"


def _names(labels: Sequence[str], most: int = 12) -> str:
    return ", ".join(labels[:most]) + ", ..." * (len(labels) > most)


def _tree(value: object, indent: str) -> Iterator[str]:
    """Nested JSON as indented lines; a list of many short values is one line."""
    if not isinstance(value, Mapping):
        yield f"{indent}{_leaf(value)}"
        return
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield f"{indent}{key}"
            yield from _tree(item, indent + "  ")
        elif isinstance(item, list | tuple) and any(
            isinstance(i, Mapping) for i in item
        ):
            yield f"{indent}{key}"
            for entry in item:
                facts = (f"{name} {_leaf(fact)}" for name, fact in entry.items())
                yield f"{indent}  {', '.join(facts)}"
        else:
            yield f"{indent}{key}: {_leaf(item)}"


def _leaf(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_leaf(item) for item in value) or "none"
    return "none" if value is None else str(value)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"

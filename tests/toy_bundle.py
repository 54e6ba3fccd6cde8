"""A complete small bundle without torch, and the same model in numpy as its judge.

The model: the source's embeddings are the memory, their sum is the first state, and a
step attends to the memory. The longer the output, the likelier the end token.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import sentencepiece
from onnx import TensorProto, helper, numpy_helper

from seq2edge.runtime.bundle import hash_files
from seq2edge.runtime.golden import Golden, GoldenExample
from seq2edge.runtime.inputs import SOURCE
from seq2edge.runtime.manifest import (
    FORMAT,
    Limits,
    Manifest,
    TensorSpec,
    TokenizerSpec,
)
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.search import search
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray
from seq2edge.runtime.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=40, pad=0, unknown=1, start=2, end=3)
WIDTH = 16
SENTENCES = ("a cat sat on the mat", "the dog ran", "a bird sang in the old tree")
BEAM_SIZES = (1, 4)
HEADS = ("greedy", "beam", "scores", "attention")

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


class ToyModel:
    """The reference: a Stepper in numpy."""

    def __init__(self, seed: int = 0) -> None:
        draw = np.random.default_rng(seed).standard_normal
        self.source = draw((VOCABULARY.size, WIDTH)).astype(np.float32)
        self.target = draw((VOCABULARY.size, WIDTH)).astype(np.float32)
        # Less likely what is like the last token, or it would repeat itself for ever.
        output = draw((WIDTH, VOCABULARY.size)) - self.target.T
        self.output = output.astype(np.float32)
        self.ending = np.zeros(VOCABULARY.size, np.float32)
        self.ending[VOCABULARY.end] = 1
        self.output[:, [VOCABULARY.pad, VOCABULARY.start]] = 0

    def encode(self, inputs: Inputs) -> tuple[Arrays, Arrays]:
        """Memory and the first state."""
        source, lengths = inputs["source"], inputs["source_lengths"]
        inside = np.arange(source.shape[1]) < lengths.astype(np.int64)[:, None]
        values = self.source[source] * inside[:, :, None]
        mask = np.where(inside, 0, -1e9).astype(np.float32)
        state = {
            "sum": values.sum(axis=1, dtype=np.float32),
            "position": np.zeros((len(source), 1), np.int64),
        }
        return {"values": values, "mask": mask}, state

    def step(
        self, token: IntArray, memory: Arrays, state: Arrays
    ) -> tuple[FloatArray, Arrays]:
        """Logits (rows, vocabulary) and the next state."""
        logits, _, following = self.attended_step(token, memory, state)
        return logits, following

    def attended_step(
        self, token: IntArray, memory: Arrays, state: Arrays
    ) -> tuple[FloatArray, FloatArray, Arrays]:
        """The same with the attention (rows, source)."""
        values = memory["values"]
        query = np.tanh(state["sum"] + self.target[token])
        scores = query.reshape(len(values), -1, WIDTH) @ values.transpose(0, 2, 1)
        weights = np.exp(_log_softmax(scores + memory["mask"][:, None]))
        total = np.tanh(query + (weights @ values).reshape(-1, WIDTH))
        position = state["position"] + 1
        logits = total @ self.output + position * self.ending
        attention = weights.reshape(len(token), -1).astype(np.float32)
        following = {"sum": total, "position": position}
        return logits.astype(np.float32), attention, following

    def start(self, inputs: Inputs) -> "ToyDecoding":
        return ToyDecoding(self, *self.encode(inputs))


@dataclass
class ToyDecoding:
    """The reference of `Decoding`."""

    model: ToyModel
    memory: Arrays
    state: Arrays

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        return _top(self.scores(tokens, parents), count)

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        return _log_softmax(self.logits(tokens, parents))

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        return self._step(tokens, parents)[0]

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        logits, attention = self._step(tokens, parents)
        return *_top(_log_softmax(logits), count), attention

    def _step(
        self, tokens: IntArray, parents: IntArray | None
    ) -> tuple[FloatArray, FloatArray]:
        if parents is not None:
            self.state = {name: part[parents] for name, part in self.state.items()}
        logits, attention, self.state = self.model.attended_step(
            tokens, self.memory, self.state
        )
        return logits, attention

    def keep(self, sentences: IntArray) -> None:
        batch = len(self.memory["values"])
        self.memory = {name: part[sentences] for name, part in self.memory.items()}
        self.state = {
            name: part.reshape(batch, -1, part.shape[1])[sentences].reshape(
                -1, part.shape[1]
            )
            for name, part in self.state.items()
        }


def toy_inputs(sentences: Sequence[Sequence[int]]) -> Arrays:
    """Pad token sequences to a batch."""
    lengths = np.array([len(each) for each in sentences], np.int32)
    source = np.full((len(sentences), lengths.max()), VOCABULARY.pad, np.int64)
    for row, each in enumerate(sentences):
        source[row, : len(each)] = each
    return {"source": source, "source_lengths": lengths}


def write_toy_bundle(folder: Path, seed: int = 0) -> ToyModel:
    """Write all of a bundle into a new folder; returns the model that it holds."""
    folder.mkdir(parents=True)
    model = ToyModel(seed)
    weights = _Weights(folder / "weights.bin")
    _save(folder / "encoder.onnx", _encoder_graph(model), weights)
    for head in HEADS:
        _save(folder / f"decoder.{head}.onnx", _step_graph(model, head), weights)
    weights.write()
    processor = _write_tokenizer(folder / "joint.spm")
    _golden(model, processor).write(folder)
    toy_manifest(folder).write(folder)
    return model


def toy_manifest(folder: Path) -> Manifest:
    """The manifest of what lies in the folder."""
    return Manifest(
        format=FORMAT,
        task="generation",
        name="toy",
        precision="fp32",
        inputs=(SOURCE,),
        memory=(
            TensorSpec("values", "float32", ("batch", "source", WIDTH)),
            TensorSpec("mask", "float32", ("batch", "source")),
        ),
        outputs=(),
        state=(
            TensorSpec("sum", "float32", ("rows", WIDTH)),
            TensorSpec("position", "int64", ("rows", 1)),
        ),
        labels=(),
        vocabulary=VOCABULARY,
        tokenizer=TokenizerSpec("sentencepiece", "joint.spm", "joint.spm", True),
        limits=Limits(source_tokens=50, target_tokens=50),
        search=SearchOptions(beam_size=4, length_penalty=0.6),
        encoder="encoder.onnx",
        heads={head: f"decoder.{head}.onnx" for head in HEADS},
        files=hash_files(folder),
        quantization=None,
        certificate={},
        provenance={"made by": "tests/toy_bundle.py"},
    )


@dataclass
class _Weights:
    """weights.bin: every tensor once, at offsets that can be mapped."""

    path: Path
    content: io.BytesIO = field(default_factory=io.BytesIO)
    offsets: dict[bytes, int] = field(default_factory=dict)

    def move(self, tensor: onnx.TensorProto) -> None:
        """Move a tensor above 1 KiB out of its graph."""
        data = tensor.raw_data
        if len(data) <= 1024:
            return
        key = hashlib.sha256(data).digest()
        if key not in self.offsets:
            self.content.write(bytes(-self.content.tell() % 4096))
            self.offsets[key] = self.content.tell()
            self.content.write(data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = {"offset": self.offsets[key], "length": len(data)}
        for name, value in {"location": self.path.name, **place}.items():
            tensor.external_data.add(key=name, value=str(value))

    def write(self) -> None:
        self.path.write_bytes(self.content.getvalue())


class _Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, op: str, *inputs: str, out: str | None = None, **given: Any) -> str:
        name = out or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **given))
        return name

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.ModelProto:
        constants = list(self.constants.values())
        graph = helper.make_graph(self.nodes, "toy", inputs, outputs, constants)
        opsets = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _float(name: str, *shape: str | int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _int(name: str, *shape: str | int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


def _encoder_graph(model: ToyModel) -> onnx.ModelProto:
    graph = _Graph()
    zero, one = graph.constant("zero", 0), graph.constant("one", 1)
    axis1, axis2 = graph.constant("axis1", [1]), graph.constant("axis2", [2])
    time = graph.add("Gather", graph.add("Shape", "source"), one)
    lengths = graph.add("Cast", "source_lengths", to=TensorProto.INT64)
    limits = graph.add("Unsqueeze", lengths, axis1)
    inside = graph.add("Less", graph.add("Range", zero, time, one), limits)
    on = graph.constant("on", np.float32(0))
    off = graph.constant("off", np.float32(-1e9))
    graph.add("Where", inside, on, off, out="memory.mask")
    table = graph.constant("source_embedding", model.source)
    weights = graph.add("Cast", inside, to=TensorProto.FLOAT)
    embedded = graph.add("Gather", table, "source")
    factors = graph.add("Unsqueeze", weights, axis2)
    graph.add("Mul", embedded, factors, out="memory.values")
    graph.add("ReduceSum", "memory.values", axis1, keepdims=0, out="state.sum")
    limits = graph.add("Sub", limits, limits)
    graph.add("Identity", limits, out="state.position")
    lengths_info = helper.make_tensor_value_info(
        "source_lengths", TensorProto.INT32, ["batch"]
    )
    return graph.model(
        [_int("source", "batch", "source"), lengths_info],
        [
            _float("memory.values", "batch", "source", WIDTH),
            _float("memory.mask", "batch", "source"),
            _float("state.sum", "batch", WIDTH),
            _int("state.position", "batch", 1),
        ],
    )


def _step_graph(model: ToyModel, head: str) -> onnx.ModelProto:
    graph = _Graph()
    reads_parents = head != "greedy"
    state = {"sum": "state.sum", "position": "state.position"}
    if reads_parents:
        state = {
            name: graph.add("Gather", given, "parents") for name, given in state.items()
        }
    logits = _step_nodes(graph, model, state)
    results = _head_nodes(graph, head, logits)
    if head == "attention":
        source = graph.add("Shape", "memory.mask", start=1, end=2)
        shape = graph.add("Concat", graph.constant("all", [-1]), source, axis=0)
        graph.add("Reshape", "weights", shape, out="attention")
        results.append(_float("attention", "rows", "source"))
    before = "previous_rows" if reads_parents else "rows"
    inputs = [_int("token", "rows")]
    inputs += [_int("parents", "rows")] if reads_parents else []
    inputs += [_int("count", 1)] if head in ("beam", "attention") else []
    inputs += [
        _float("memory.values", "batch", "source", WIDTH),
        _float("memory.mask", "batch", "source"),
        _float("state.sum", before, WIDTH),
        _int("state.position", before, 1),
    ]
    following = [_float("next.sum", "rows", WIDTH), _int("next.position", "rows", 1)]
    return graph.model(inputs, results + following)


def _step_nodes(graph: _Graph, model: ToyModel, state: dict[str, str]) -> str:
    axis1, one = graph.constant("axis1", [1]), graph.constant("one", 1)
    table = graph.constant("target_embedding", model.target)
    embedded = graph.add("Gather", table, "token")
    query = graph.add("Tanh", graph.add("Add", state["sum"], embedded))
    batch = graph.add("Shape", "memory.values", start=0, end=1)
    rest = graph.constant("rest", [-1, WIDTH])
    beams = graph.add("Reshape", query, graph.add("Concat", batch, rest, axis=0))
    values = graph.add("Transpose", "memory.values", perm=[0, 2, 1])
    scores = graph.add("MatMul", beams, values)
    masked = graph.add("Add", scores, graph.add("Unsqueeze", "memory.mask", axis1))
    weights = graph.add("Softmax", masked, axis=-1, out="weights")
    context = graph.add("MatMul", weights, "memory.values")
    flat = graph.add("Reshape", context, rest)
    graph.add("Tanh", graph.add("Add", query, flat), out="next.sum")
    graph.add("Add", state["position"], one, out="next.position")
    logits = graph.add("MatMul", "next.sum", graph.constant("output", model.output))
    position = graph.add("Cast", "next.position", to=TensorProto.FLOAT)
    ending = graph.add("Mul", position, graph.constant("ending", model.ending))
    return graph.add("Add", logits, ending)


def _head_nodes(graph: _Graph, head: str, logits: str) -> list[Any]:
    axis1 = graph.constant("axis1", [1])
    log_probs = graph.add("LogSoftmax", logits, axis=-1, out="log_probs")
    if head == "scores":
        best = [graph.add("ReduceMax", each, axis1) for each in (logits, log_probs)]
        graph.add("Sub", *best, out="log_normalizer")
        normalizer = _float("log_normalizer", "rows", 1)
        return [_float("log_probs", "rows", VOCABULARY.size), normalizer]
    if head in ("beam", "attention"):
        top = ["top_log_probs", "top_tokens"]
        graph.nodes.append(helper.make_node("TopK", [log_probs, "count"], top))
        return [_float(top[0], "rows", "count"), _int(top[1], "rows", "count")]
    graph.add("ReduceMax", log_probs, axis1, keepdims=0, out="best_log_prob")
    graph.add("ArgMax", log_probs, axis=1, keepdims=0, out="best_token")
    return [_float("best_log_prob", "rows"), _int("best_token", "rows")]


def _save(path: Path, model: onnx.ModelProto, weights: _Weights) -> None:
    onnx.checker.check_model(model)
    for tensor in model.graph.initializer:
        weights.move(tensor)
    path.write_bytes(model.SerializeToString())


def _write_tokenizer(path: Path) -> sentencepiece.SentencePieceProcessor:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=written,
        vocab_size=VOCABULARY.size,
        model_type="bpe",
        normalization_rule_name="identity",
        pad_id=VOCABULARY.pad,
        unk_id=VOCABULARY.unknown,
        bos_id=VOCABULARY.start,
        eos_id=VOCABULARY.end,
        minloglevel=2,
    )
    path.write_bytes(written.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def _golden(model: ToyModel, processor: sentencepiece.SentencePieceProcessor) -> Golden:
    """What the numpy model says, by the search that the runtime uses."""
    examples = []
    for text in SENTENCES:
        ids = [*processor.encode(text), VOCABULARY.end]
        for beam_size in BEAM_SIZES:
            options = SearchOptions(beam_size=beam_size, length_penalty=0.6)
            [[best]] = search(model, toy_inputs([ids]), VOCABULARY, options, [50])
            text_out = processor.decode(list(best.tokens))
            examples.append(
                GoldenExample(text, False, beam_size, best.tokens, text_out, best.score)
            )
    return Golden(tuple(examples))


def _top(log_probs: FloatArray, count: int) -> tuple[FloatArray, IntArray]:
    """The `count` best of each row, best first."""
    top = np.argsort(-log_probs, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(log_probs, top, axis=1), top


def _log_softmax(scores: FloatArray) -> FloatArray:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    log_probs: FloatArray = shifted - np.log(
        np.exp(shifted).sum(axis=-1, keepdims=True)
    )
    return log_probs

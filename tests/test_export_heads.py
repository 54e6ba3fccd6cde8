from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seq2edge.export.heads import (
    MakeHead,
    attention_head,
    beam_head,
    greedy_head,
    scores_head,
)
from seq2edge.export.prune import prune

# A step on paper: the state counts the tokens read, and the logits of four tokens are
# row `state` of this table.
LOGITS = np.array([[0, 1, 2, 3], [5, 0, 0, 1], [1, 1, 9, 2], [7, 0, 2, 3]], np.float32)


def decoder(kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    table = LOGITS if kind == TensorProto.FLOAT else LOGITS.astype(np.float16)
    nodes = [
        helper.make_node("Add", ["state.count", "token"], ["next.count"]),
        helper.make_node("Gather", ["table", "next.count"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            helper.make_tensor_value_info("token", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("state.count", TensorProto.INT64, ["rows"]),
        ],
        [
            helper.make_tensor_value_info("logits", kind, ["rows", 4]),
            helper.make_tensor_value_info("next.count", TensorProto.INT64, ["rows"]),
        ],
        [numpy_helper.from_array(table, "table")],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def run(model: onnx.ModelProto, **feed: Any) -> list[NDArray[np.float32]]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    arrays = {name.replace("_", "."): np.array(v) for name, v in feed.items()}
    found: list[NDArray[np.float32]] = session.run(None, arrays)
    return found


def log_softmax(row: int) -> NDArray[np.float64]:
    logits = LOGITS[row].astype(np.float64)
    scores: NDArray[np.float64] = logits - np.log(np.exp(logits).sum())
    return scores


def test_greedy_gives_the_best_token_and_its_log_probability() -> None:
    log_prob, token, following = run(
        greedy_head(decoder()), token=[1, 0], state_count=[1, 3]
    )
    assert token.tolist() == [2, 0]
    assert following.tolist() == [2, 3]
    expected = [log_softmax(2)[2], log_softmax(3)[0]]
    np.testing.assert_allclose(log_prob, expected, rtol=0, atol=1e-6)


def test_beam_gives_as_many_as_asked_for_best_first_after_reordering() -> None:
    model = beam_head(decoder())
    # Rows 0 and 1 both go on from row 1 of before, whose count is 2; row 2 from row 0.
    log_probs, tokens, following = run(
        model, token=[0, 1, 0], state_count=[1, 2], parents=[1, 1, 0], count=[3]
    )
    assert following.tolist() == [2, 3, 1]
    assert tokens.tolist() == [[2, 3, 0], [0, 3, 2], [0, 3, 1]]
    np.testing.assert_allclose(
        log_probs[1], log_softmax(3)[[0, 3, 2]], rtol=0, atol=1e-6
    )


def test_scores_gives_all_log_probabilities_after_reordering() -> None:
    log_probs, normalizer, following = run(
        scores_head(decoder()), token=[0, 0], state_count=[1, 2], parents=[1, 0]
    )
    assert following.tolist() == [2, 1]
    expected = [log_softmax(2), log_softmax(1)]
    np.testing.assert_allclose(log_probs, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(log_probs + normalizer, LOGITS[[2, 1]], atol=1e-5)


def test_the_state_fed_to_beam_may_have_other_rows_than_the_tokens() -> None:
    state = next(i for i in beam_head(decoder()).graph.input if "state" in i.name)
    assert state.type.tensor_type.shape.dim[0].dim_param == "previous_rows"


def attending() -> onnx.ModelProto:
    """The same decoder, which looked at position 0 a tenth as often as it counted."""
    model = decoder()
    nodes = [
        helper.make_node("Cast", ["next.count"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "tenth"], ["first"]),
        helper.make_node("Sub", ["one", "first"], ["second"]),
        helper.make_node("Unsqueeze", ["first", "axis"], ["left"]),
        helper.make_node("Unsqueeze", ["second", "axis"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["attention"], axis=1),
    ]
    model.graph.node.extend(nodes)
    constants = {"tenth": np.float32(0.1), "one": np.float32(1), "axis": np.array([1])}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    )
    shape = ["rows", "positions"]
    value = helper.make_tensor_value_info("attention", TensorProto.FLOAT, shape)
    model.graph.output.insert(1, value)  # behind the logits
    return model


def test_attention_gives_what_beam_gives_and_where_each_row_looked() -> None:
    feed = {"token": [0, 1, 0], "state_count": [1, 2], "parents": [1, 1, 0]}
    log_probs, tokens, attention, following = run(
        attention_head(attending()), **feed, count=[2]
    )
    expected = run(beam_head(decoder()), **feed, count=[2])
    for one, other in zip((log_probs, tokens, following), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(attention, [[0.2, 0.8], [0.3, 0.7], [0.1, 0.9]])


@pytest.mark.parametrize("head", [greedy_head, beam_head, scores_head])
def test_other_heads_hold_nothing_of_an_attention(head: MakeHead) -> None:
    assert head(attending()) == head(decoder())


def test_what_a_subgraph_reads_is_kept() -> None:
    reads = helper.make_node("Identity", ["outer"], ["inner"])
    result = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])
    branch = helper.make_graph([reads], "branch", [], [result])
    nodes = [
        helper.make_node("Neg", ["x"], ["outer"]),
        helper.make_node("Neg", ["x"], ["unread"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    ports = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("x", TensorProto.FLOAT, [1]),
            ("yes", TensorProto.BOOL, []),
            ("z", TensorProto.FLOAT, [1]),
            ("y", TensorProto.FLOAT, [1]),
        )
    ]
    weight = numpy_helper.from_array(np.ones(1, np.float32), "weight")
    graph = helper.make_graph(nodes, "outer", ports[:3], ports[3:], [weight])
    prune(graph)
    assert [node.output[0] for node in graph.node] == ["outer", "y"]
    assert [value.name for value in graph.input] == ["x", "yes"]
    assert not graph.initializer


@pytest.mark.parametrize("head", [greedy_head, beam_head, scores_head])
def test_heads_leave_the_decoder_as_it_was(head: object) -> None:
    model = decoder()
    before = model.SerializeToString()
    head(model)  # type: ignore[operator]
    assert model.SerializeToString() == before


def test_half_precision_logits_are_scored_in_single() -> None:
    model = scores_head(decoder(TensorProto.FLOAT16))
    log_probs, _, _ = run(model, token=[0], state_count=[1], parents=[0])
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(log_probs[0], log_softmax(1), rtol=0, atol=1e-6)


def over(size: int) -> onnx.ModelProto:
    """A decoder whose logits, of so many tokens, are its state."""
    shape: list[str | int] = ["rows", size]
    state, logits, following = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("state.of", "logits", "next.of")
    )
    nodes = [
        helper.make_node("Identity", ["state.of"], ["logits"]),
        helper.make_node("Identity", ["state.of"], ["next.of"]),
    ]
    graph = helper.make_graph(nodes, "decoder", [state], [logits, following])
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


@pytest.mark.parametrize("size", [1023, 1024, 1025, 4999, 8064])
@pytest.mark.parametrize("levels", [3, 50, 1 << 20])
def test_the_best_of_a_long_row_are_those_of_a_stable_sort(
    size: int, levels: int
) -> None:
    rng = np.random.default_rng(size + levels)
    logits = rng.integers(-levels, levels, (7, size)).astype(np.float32) / levels
    logits[1, 3:] = -np.inf  # fewer finite ones than are asked for
    logits[2, ::-1].sort()
    # Many of few levels are equal, and then the lower ids come first.
    head, single = beam_head(over(size)), greedy_head(over(size))
    same = list(range(7))
    scores, *_ = run(scores_head(over(size)), state_of=logits, parents=same)
    session = onnxruntime.InferenceSession(head.SerializeToString())
    for count in (1, 2, 8, 64, size // 64 + 2, size):
        feed = {
            "state.of": logits,
            "parents": np.array(same),
            "count": np.array([count]),
        }
        log_probs, tokens = session.run(["top_log_probs", "top_tokens"], feed)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        finite = np.take_along_axis(scores, order, axis=1) > -np.inf
        np.testing.assert_array_equal(tokens[finite], order[finite])
        assert (log_probs[~finite] == -np.inf).all()
        assert tokens.max() < size
    best = run(single, state_of=logits)[1]
    np.testing.assert_array_equal(best, scores.argmax(axis=1))

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seq2edge.models.torch_stepper import TorchStepper


class Counter(nn.Module):
    """State: the sum of tokens read; logits: minus the distance to memory + sum."""

    def encode(
        self, source: Tensor, source_lengths: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        total = source.sum(1).float()
        return {"total": total}, {"sum": torch.zeros_like(total)}

    def step(
        self, token: Tensor, memory: dict[str, Tensor], state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        batch = memory["total"].shape[0]
        read = state["sum"] + token
        goal = (memory["total"][:, None] + read.reshape(batch, -1)).reshape(-1)
        logits = -(torch.arange(20.0) - goal[:, None]).abs()
        return logits, {"sum": read}


def test_best_gives_the_most_probable_tokens_best_first() -> None:
    decoding = TorchStepper(Counter().eval()).start(
        {"source": np.array([[3]]), "source_lengths": np.array([1], np.int32)}
    )
    log_probs, tokens = decoding.best(np.array([2]), None, 3)
    assert tokens[0, 0] == 5
    assert set(tokens[0, 1:]) == {4, 6}
    assert log_probs.dtype == np.float32
    # softmax of minus the distance to 5, over the tokens 0 to 19
    normaliser = sum(np.exp(-abs(i - 5)) for i in range(20))
    np.testing.assert_allclose(log_probs[0, 0], -np.log(normaliser), rtol=1e-6)


def test_parents_reorder_the_state_and_may_widen_it() -> None:
    decoding = TorchStepper(Counter().eval()).start(
        {
            "source": np.array([[1, 2], [3, 0]]),
            "source_lengths": np.array([2, 1], np.int32),
        }
    )
    decoding.best(np.array([1, 2]), None, 2)  # sums 1, 2
    scores = decoding.scores(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    assert scores.argmax(1).tolist() == [4, 5, 5, 6]
    scores = decoding.scores(np.array([0, 0, 0, 0]), np.array([1, 0, 3, 2]))
    assert scores.argmax(1).tolist() == [5, 4, 6, 5]


def test_keep_drops_sentences_with_all_their_rows() -> None:
    decoding = TorchStepper(Counter().eval()).start(
        {
            "source": np.array([[1, 2], [3, 0], [4, 1]]),
            "source_lengths": np.array([2, 1, 2], np.int32),
        }
    )
    decoding.best(np.array([0, 1, 2]), None, 1)
    decoding.best(np.arange(6), np.array([0, 0, 1, 1, 2, 2]), 1)
    decoding.keep(np.array([0, 2]))
    scores = decoding.scores(np.zeros(4, np.int64), None)
    # sentence 0: 3 + 0 + (0, 1); sentence 2: 5 + 2 + (4, 5)
    assert scores.argmax(1).tolist() == [3, 4, 11, 12]


def test_a_module_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="eval"):
        TorchStepper(Counter().train()).start({"source": np.array([[1]])})

"""What results may depend on: each rule broken by a module, and its message."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_modules import END, START, TOYS, VOCABULARY, AttentiveGru, build, subject

from seq2edge.export.dependence import check_dependence
from seq2edge.export.dummies import Dummies
from seq2edge.export.examine import Subject, examine
from seq2edge.export.sample import Sample
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.inputs import SOURCE, tokens_input

Named = dict[str, Tensor]
SENTENCES = [[3, 4, 5, END], [6, 7, 8, 9, 10, END], [12, 11, END]]


def check(module: Any) -> None:
    examined = subject(module.eval(), SENTENCES, START)
    examine(examined)
    check_dependence(examined)


@pytest.mark.parametrize("kind", TOYS)
def test_an_honest_module_passes(kind: Any) -> None:
    check(build(kind))


class Masked(nn.Module):
    """Sums the source's embeddings within its length; a step adds its token's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.output = nn.Linear(6, VOCABULARY)

    def inside(self, source: Tensor, lengths: Tensor) -> Tensor:
        positions = torch.arange(source.shape[1])
        return (positions < lengths[:, None]).float().unsqueeze(-1)

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        embedded = self.embedding(source) * self.inside(source, source_lengths)
        return {}, {"sum": embedded.sum(1)}

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        total = state["sum"] + self.embedding(token)
        return self.output(torch.tanh(total)), {"sum": total}


class SumsPadding(Masked):
    def inside(self, source: Tensor, lengths: Tensor) -> Tensor:
        return torch.ones(source.shape).unsqueeze(-1)


class DividesByTheLongest(Masked):
    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        memory, state = super().encode(source, source_lengths)
        return memory, {"sum": state["sum"] / source.shape[1]}


class NormalisesTheBatch(Masked):
    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        memory, state = super().encode(source, source_lengths)
        return memory, {"sum": state["sum"] - state["sum"].mean(0)}


class ForgetsItsMask(AttentiveGru):
    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        memory, state = super().encode(source, source_lengths)
        return memory | {"mask": memory["mask"] * 0}, state


class IgnoresItsToken(Masked):
    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        return super().step(token * 0, memory, state)


class IgnoresItsSource(Masked):
    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        memory, state = super().encode(source * 0 + 3, source_lengths * 0 + 1)
        return memory, state


class ReadsNoMemory(Masked):
    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        _, state = super().encode(source, source_lengths)
        return {"sum": state["sum"]}, {"sum": torch.zeros_like(state["sum"])}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            SumsPadding,
            "state 'sum' of a row alone.*depends on padding; use source_l",
        ),
        (DividesByTheLongest, "state 'sum'.*depends on padding; use"),
        (NormalisesTheBatch, "state 'sum'.*other rows.*compute nothing across axis 0"),
        (ForgetsItsMask, "the logits of step 1.*padding.*mask before a softmax"),
        (IgnoresItsToken, "neither the logits nor the next state.*token"),
        (IgnoresItsSource, "nothing that encode returns depends on its input 'source'"),
        (ReadsNoMemory, "logits of the first 2 steps do not depend on what encode"),
    ],
)
def test_a_broken_rule_is_named(kind: Any, message: str) -> None:
    module = build(kind) if issubclass(kind, AttentiveGru) else kind()
    with pytest.raises(ExportError, match=message):
        check(module)


def test_a_source_whose_only_padded_content_differs_is_not_taken_for_read() -> None:
    # A sample of one token can't show whether an input is read, and accuses nobody.
    sample = Sample.of_ids([[3], [3, 3], [3]])
    dummies = Dummies.of(sample.examples, [SOURCE])
    check_dependence(Subject(IgnoresItsSource().eval(), "generation", dummies, START))


class TwoSources(Masked):
    reads_both = True

    def encode(  # type: ignore[override]
        self,
        article: Tensor,
        article_lengths: Tensor,
        question: Tensor,
        question_lengths: Tensor,
    ) -> tuple[Named, Named]:
        _, first = super().encode(article, article_lengths)
        _, second = super().encode(question, question_lengths)
        return {}, {"sum": first["sum"] + second["sum"] * self.reads_both}


@pytest.mark.parametrize("reads_both", [True, False])
def test_each_of_two_inputs_must_be_read(reads_both: bool) -> None:
    module = TwoSources().eval()
    module.reads_both = reads_both
    sample = Sample.of(
        [{"article": ids, "question": ids[:2][::-1]} for ids in SENTENCES]
    )
    inputs = (tokens_input("article"), tokens_input("question"))
    examined = Subject(module, "generation", Dummies.of(sample.examples, inputs), START)
    contract = examine(examined)
    assert contract.inputs == inputs
    if reads_both:
        check_dependence(examined)
    else:
        with pytest.raises(ExportError, match="depends on its input 'question'"):
            check_dependence(examined)


class Tagger(nn.Module):
    """A label for every token by its own embedding and a running sum."""

    def __init__(self, backwards: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.output = nn.Linear(6, 3)
        self.backwards = backwards

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        positions = torch.arange(source.shape[1])
        inside = (positions < source_lengths[:, None]).float().unsqueeze(-1)
        embedded = self.embedding(source) * inside
        sums = embedded.cumsum(1)
        if self.backwards:
            sums = embedded.sum(1, keepdim=True) - sums
        return {"logits": self.output(sums)}, {"sum": embedded.sum(1)}

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        total = state["sum"] + self.embedding(token)
        return self.output(total), {"sum": total}


def tagger(module: nn.Module) -> Subject:
    sample = Sample.of_ids(SENTENCES)
    dummies = Dummies.of(sample.examples, [SOURCE])
    return Subject(module.eval(), "tagging", dummies, 0)


def test_a_stream_that_says_what_the_whole_pass_says_passes() -> None:
    examined = tagger(Tagger())
    contract = examine(examined)
    assert [spec.name for spec in contract.outputs] == ["logits"]
    assert contract.outputs[0].shape == ("batch", "source", 3)
    assert contract.memory == ()
    check_dependence(examined)


def test_a_stream_that_reads_backwards_is_refused() -> None:
    with pytest.raises(ExportError, match=r"at position 0 .*reads backwards can't str"):
        check_dependence(tagger(Tagger(backwards=True)))


def test_a_tagger_needs_logits_of_every_position() -> None:
    class Classifier(Tagger):
        def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
            outputs, _ = super().encode(source, source_lengths)
            return {"logits": outputs["logits"][:, 0]}, {}

    with pytest.raises(ExportError, match=r"tagging needs \(batch, time, labels\)"):
        examine(tagger(Classifier()))

    class Nameless(Tagger):
        def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
            outputs, _ = super().encode(source, source_lengths)
            return {"scores": outputs["logits"]}, {}

    with pytest.raises(ExportError, match="output has scores, and tagging needs 'log"):
        examine(tagger(Nameless()))


def test_dummies_give_every_input_a_length_of_its_own() -> None:
    examples = [{"a": np.array([5, 6, 7]), "b": np.array([8])}]
    dummies = Dummies.of(examples, (tokens_input("a"), tokens_input("b")))
    arrays = dummies.arrays(2, 7)
    assert arrays["a"].shape == (2, 7)
    assert arrays["b"].shape == (2, 10)
    assert arrays["a_lengths"].tolist() == [7, 6]
    assert arrays["b_lengths"].tolist() == [10, 9]
    assert set(arrays["a"][0]) == {5, 6, 7}

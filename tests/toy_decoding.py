"""A decoding that must not be asked: fakes override what their test may ask."""

from seq2edge.runtime.stepper import FloatArray, IntArray


class UnaskedDecoding:
    """Satisfies the protocol; every question is a failure."""

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        raise AssertionError("nobody should ask for the best tokens here")

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        raise AssertionError("nobody should ask for all log-probabilities here")

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        raise AssertionError("nobody should ask for logits here")

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        raise AssertionError("nobody should ask for the attention here")

    def keep(self, sentences: IntArray) -> None:
        raise AssertionError("nobody should drop sentences here")

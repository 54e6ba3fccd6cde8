import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from seq2edge.export.translations import TRANSLATIONS


class Repeats(nn.Module):
    def forward(self, rows: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
        beam = rows.shape[0] // memory.shape[0]
        return (
            memory.repeat_interleave(beam, 0) + rows[:, None],
            torch.repeat_interleave(memory, beam, dim=1),
            memory.repeat_interleave(beam),
            memory.repeat_interleave(2, -1),
        )


@pytest.mark.filterwarnings("ignore")  # of torch's own internals
def test_a_memory_repeats_by_a_beam_that_was_not_known() -> None:
    arguments = (torch.zeros(6), torch.arange(12.0).reshape(3, 4))
    free = {0: Dim.DYNAMIC}
    program = torch.export.export(
        Repeats(),
        arguments,
        dynamic_shapes=(free, free),
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    exported = torch.onnx.export(
        program,
        arguments,
        input_names=["rows", "memory"],
        opset_version=21,
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    assert exported is not None
    session = onnxruntime.InferenceSession(exported.model_proto.SerializeToString())
    for batch, beam in ((3, 2), (1, 4), (5, 1), (2, 2)):
        rows = torch.zeros(batch * beam)
        memory = torch.arange(batch * 4.0).reshape(batch, 4)
        found = session.run(None, {"rows": rows.numpy(), "memory": memory.numpy()})
        for one, other in zip(found, Repeats()(rows, memory), strict=True):
            np.testing.assert_array_equal(one, other)

"""The page that compares decoders: what it compares, and that it says it."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from decoder_latency import contenders
from decoder_latency_page import page, plot

RECORD = {
    "decoders": [
        {
            "decoder": name,
            "parameters": 2_000_000,
            "weight_bytes": {"fp32": 16_000_000, "int8": 4_000_000},
            "state_bytes": {10: 2000, 40: 8000},
        }
        for name in ("transformer", "GRU")
    ],
    "timings": [
        {
            "decoder": name,
            "precision": "int8",
            "batch": 1,
            "length": length,
            "milliseconds": length * factor,
            "lower": length * factor * 0.9,
            "upper": length * factor * 1.2,
        }
        for name, factor in (("transformer", 0.25), ("GRU", 0.2))
        for length in (10, 40)
    ],
}


def test_the_decoders_are_of_one_size() -> None:
    found = {one.name: one.parameters for one in contenders()}
    assert found.keys() == {"transformer", "SSRU", "GRU", "LSTM"}
    assert max(found.values()) < 1.02 * min(found.values())


def test_the_page_has_a_row_for_each_decoder_and_precision() -> None:
    text = page(RECORD, 7)
    assert "medians of 7 rounds" in text
    assert "| transformer | 2,000,000 | 16.0 MB | 4.0 MB | 2.0 | 8.0 |" in text
    assert "| GRU | int8 | 2.00 | 8.00 |" in text


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot(RECORD, tmp_path / "plot.svg")
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    assert root.tag.endswith("svg")

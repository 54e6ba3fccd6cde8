"""Load a bundle and decode with it: numpy, onnxruntime and sentencepiece, no torch.

    from seq2edge.runtime import Translator

    translator = Translator.load("en-de.int8")
    print(translator.translate("The cat sat on the mat.").text)

The names are imported when they are first used: importing the room costs nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seq2edge.runtime.alignment import Alignment
    from seq2edge.runtime.engine import EngineOptions
    from seq2edge.runtime.guide import Guide
    from seq2edge.runtime.hypothesis import Hypothesis
    from seq2edge.runtime.monitor import Watch
    from seq2edge.runtime.options import SearchOptions
    from seq2edge.runtime.predictor import Prediction, Predictor
    from seq2edge.runtime.scoring import TargetScore
    from seq2edge.runtime.translator import Translation, Translator

__all__ = [
    "Alignment",
    "EngineOptions",
    "Guide",
    "Hypothesis",
    "Prediction",
    "Predictor",
    "SearchOptions",
    "TargetScore",
    "Translation",
    "Translator",
    "Watch",
]

if not TYPE_CHECKING:
    _MODULES = {
        "Alignment": "alignment",
        "EngineOptions": "engine",
        "Guide": "guide",
        "Hypothesis": "hypothesis",
        "Prediction": "predictor",
        "Predictor": "predictor",
        "SearchOptions": "options",
        "TargetScore": "scoring",
        "Translation": "translator",
        "Translator": "translator",
        "Watch": "monitor",
    }

    def __getattr__(name):
        """Import the module that a name is from."""
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{_MODULES[name]}")
        return getattr(module, name)

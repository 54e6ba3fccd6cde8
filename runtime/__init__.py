"""Load a bundle and decode with it: numpy, onnxruntime and sentencepiece, no torch."""

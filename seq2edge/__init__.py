"""Export PyTorch sequence-to-sequence models to ONNX and run them without torch."""

"""PyTorch models and checkpoints to verified ONNX bundles."""

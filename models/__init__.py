"""Reference networks, their checkpoints and their training."""

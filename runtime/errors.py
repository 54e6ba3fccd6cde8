"""Every error that seq2edge raises on purpose.

A message is one sentence that says what is wrong, with the value, and what to do; the
command line prints it without a traceback and exits with 1.
"""


class Seq2EdgeError(Exception):
    """Anything a user can cause and mend."""


class ConfigError(Seq2EdgeError):
    """A recipe, an option or a model configuration that can't be meant."""


class CheckpointError(Seq2EdgeError):
    """A checkpoint that is missing, damaged or of another shape."""


class BundleError(Seq2EdgeError):
    """A bundle that is missing, damaged, newer than this program or not one at all."""


class InputError(Seq2EdgeError):
    """Text or arrays that can't be decoded."""


class ExportError(Seq2EdgeError):
    """A model that can't be exported as asked."""


class ParityError(ExportError):
    """A bundle that differs from PyTorch, or loses quality, beyond its limit."""


class OutputError(Seq2EdgeError):
    """A place that can't be written, or holds something that isn't ours to replace."""

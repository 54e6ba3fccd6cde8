"""The environment of a process that starts as an installed package does.

pip compiles what it installs; a checkout's own modules are compiled when they are first
imported, and for good unless that is forbidden: then each start compiles some fifty
files, which takes 35 milliseconds.
"""

import os


def environment() -> dict[str, str]:
    """This process's, but compiled modules may be kept."""
    forbids = "PYTHONDONTWRITEBYTECODE"
    return {name: value for name, value in os.environ.items() if name != forbids}

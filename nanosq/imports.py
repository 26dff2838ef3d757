"""Imports of large libraries without the garbage collector."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 100  # modules of a large library


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large libraries in the block, in two thirds of the time.

    PyTorch and MLflow create half a million objects that live as long as the program. The garbage collector would
    search them again and again: while they are created, in the first collections of training, and when the program
    ends. It is paused in the block, and afterwards it ignores the objects that exist at the end of the block
    (gc.freeze). A block that imports no large library, as in the second trial of a sweep, freezes nothing.
    """
    n_modules, is_enabled = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) - n_modules > MANY:
            gc.freeze()
        if is_enabled:
            gc.enable()

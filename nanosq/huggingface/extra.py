"""The libraries of the extra `[hf]`, which not every installation has."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra() -> Iterator[None]:
    """Import libraries of the extra in the block.

    Raises:
        ValueError: One is not installed. The message says how to install it.
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(f"Hugging Face's format needs {error.name}: pip install 'nanosq[hf]'") from error

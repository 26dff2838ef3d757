"""The documents of a source, which may be a function of the user: each of them is checked."""

from collections.abc import Iterable, Iterator

from nanosq.component_errors import calling
from nanosq.data.corpus_key import source_function
from nanosq.data.sources import Document, Source
from nanosq.errors import InputError

CONTRACT = "a source is a generator function (split, *, ...) that yields nanosq.data.sources.Document(text)"


def documents(source: Source, split: str) -> Iterator[Document]:
    """Yield the documents of a split.

    Raises:
        ValueError: The source fails, or gives something else. The message says how, on one line.
    """
    function = source_function(source)
    name = f"{function.__module__}.{function.__qualname__}"
    with calling(name, CONTRACT):
        found: object = source(split)
        if not isinstance(found, Iterable):
            raise InputError(f"{name} returns {type(found).__name__}; {CONTRACT}")
        for document in found:
            if not isinstance(document, Document):
                raise InputError(f"{name} yields {type(document).__name__}; {CONTRACT}")
            text, log_probability = document
            if not isinstance(text, str) or not isinstance(log_probability, float | int):
                raise InputError(f"{name} yields {str(document)[:80]}: the text must be a str; {CONTRACT}")
            yield document

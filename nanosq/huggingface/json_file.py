"""JSON files of others, read with one line for every error."""

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 100_000_000  # the largest tokenizer.json in use has about 35 MB


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ValueError: It does not exist, is too large, or is not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES / 1e6:.0f} MB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text in UTF-8") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises:
        ValueError: The file cannot be read or holds something else.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError also for an integer of thousands of digits
        reason = "too many brackets" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is not JSON: {reason}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value

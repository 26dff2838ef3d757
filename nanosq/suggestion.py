"""Suggestions for mistyped names."""

import difflib
from collections.abc import Iterable


def closest(wrong: object, names: Iterable[str], *, otherwise: str = "") -> str:
    """Return the end of a message: "; did you mean 'name'?" for the name that is most like a wrong one.

    Args:
        wrong: What the user has given.
        names: What exists.
        otherwise: Advice where no name is like it.
    """
    found = difflib.get_close_matches(str(wrong), [*names], n=1)
    advice = f"did you mean {found[0]!r}?" if found else otherwise
    return f"; {advice}" if advice else ""

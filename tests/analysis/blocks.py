"""Blocks of a section by their kind."""

from analysis.figures import Figure
from analysis.page import Section, Table, Text


def texts(section: Section, kind: str | None = None) -> str:
    """Return the paragraphs of a kind, by default of all kinds."""
    return "\n".join(b.text for b in section.blocks if isinstance(b, Text) and kind in (None, b.kind))


def tables(section: Section) -> dict[str, Table]:
    return {block.name: block for block in section.blocks if isinstance(block, Table)}


def figure_names(section: Section) -> list[str]:
    return [block.name for block in section.blocks if isinstance(block, Figure)]

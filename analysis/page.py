"""Blocks of a report, and the page that shows them: one HTML file that needs no network."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.figures import THEME, Figure

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True)
class Cell:
    """A cell of a table. `value` is the text at full precision, for the CSV file."""

    text: str
    value: float | str | None = None
    link: str = ""
    strong: bool = False

    @property
    def number(self) -> bool:
        """True if the cell holds a number."""
        return isinstance(self.value, float | int) or self.text == DASH


@dataclass(frozen=True)
class Table:
    """A table of the page, which is also a CSV file."""

    name: str  # of its file
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    folded: bool = False  # shown when it is asked for

    def cells(self) -> list[list[Cell]]:
        """Return the rows with all cells as `Cell`."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]

    def save(self, folder: Path) -> None:
        """Write the CSV file."""
        with (folder / f"{self.name}.csv").open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(self.header)
            lines.writerows([cell.text if cell.value is None else cell.value for cell in row] for row in self.cells())

    def text(self) -> str:
        """Return the table as text for a terminal."""
        lines = [list(self.header), *([cell.text for cell in row] for row in self.cells())]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


@dataclass(frozen=True)
class Text:
    """A paragraph. The kind is "note" for a remark about the numbers, "verdict" for the answer."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Samples:
    """Texts side by side, each with a title."""

    columns: Sequence[tuple[str, str]]


Block = Text | Table | Figure | Samples


@dataclass
class Section:
    """A section of the page."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the section in links."""
        return "-".join(self.title.lower().split())

    def files(self) -> Iterable[Table | Figure]:
        """Return the tables and figures, which are files too."""
        return (block for block in self.blocks if isinstance(block, Table | Figure))


def number(value: float, digits: int = 4, *, strong: bool = False, link: str = "") -> Cell:
    """Return a cell with `digits` significant digits; a dash for nan, ∞ for inf."""
    if math.isnan(value):
        return Cell(DASH, link=link)
    if math.isinf(value):
        return Cell("∞" if value > 0 else f"{MINUS}∞", value, link, strong)
    whole = abs(value) >= 10**digits or value == int(value)
    text = f"{value:,.0f}" if whole else f"{value:#.{digits}g}".rstrip(".")
    return Cell(text.replace("-", MINUS) if "e" not in text else text, value, link, strong)


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.tests |= {
        kind.__name__.lower(): lambda block, kind=kind: isinstance(block, kind)
        for kind in (Text, Table, Figure, Samples)
    }
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, lead=lead, sections=sections, theme=THEME)


def print_section(section: Section, folder: Path) -> None:
    """Print the texts and tables of a section, write its files to a folder, and print their paths."""
    for block in section.blocks:
        if isinstance(block, Text):
            print(block.text, end="\n\n")
        elif isinstance(block, Table):
            print(block.text(), end="\n\n")
    folder.mkdir(parents=True, exist_ok=True)
    for part in section.files():
        part.save(folder)
        ends = ("png", "svg") if isinstance(part, Figure) else ("csv",)
        print(*(folder / f"{part.name}.{end}" for end in ends), sep="\n")


def write(folder: Path, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write the page, with its tables and figures as files beside it, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [part for section in sections for part in section.files()]
    names = [(type(part), part.name) for part in parts]
    assert len({*names}) == len(names), f"one file for two: {names}"
    for part in parts:
        part.save(folder)
    path = folder / "report.html"
    path.write_text(render(title, lead, sections), encoding="utf-8")
    return path

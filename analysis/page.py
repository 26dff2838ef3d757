"""Blocks of a report, and the page that shows them: one HTML file that needs no network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.figures import THEME, Figure
from nanosq import terminal

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
NUMERIC = 0.75  # share of numbers in a column that is aligned like numbers
MAX_WHOLE = 1e7  # greater values of settings are written with an exponent
TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True)
class Cell:
    """A cell of a table. `value` is its content at full precision, for the CSV file."""

    text: str
    value: float | str | None = None
    link: str = ""
    strong: bool = False

    @property
    def number(self) -> bool:
        """True if the cell holds a number."""
        return isinstance(self.value, float | int) or self.text == DASH


Row = list["Cell | str | int"]


@dataclass(frozen=True)
class Table:
    """A table of the page, which is also written as a CSV file of the same name."""

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str | int]]  # a whole number is shown without separators
    caption: str = ""
    folded: bool = False  # the page shows it on request, a terminal does not

    def cells(self) -> list[list[Cell]]:
        """Return the rows with all cells as `Cell`."""
        return [[_cell(content) for content in row] for row in self.rows]

    def numeric(self) -> list[bool]:
        """Return for each column whether it holds numbers and hardly any text. It is aligned at the right."""
        columns = [*zip(*self.cells(), strict=True)] or [()] * len(self.header)
        return [sum(cell.number for cell in column) > NUMERIC * len(column) for column in columns]

    def save(self, folder: Path) -> list[Path]:
        """Write the CSV file and return its path in a list."""
        import pandas as pd

        path = folder / f"{self.name}.csv"
        values = [[cell.text if cell.value is None else cell.value for cell in row] for row in self.cells()]
        pd.DataFrame(values, columns=list(self.header), dtype=object).to_csv(path, index=False)
        return [path]

    def text(self, width: int | None = None) -> str:
        """Return the table as text of at most `width` characters in a line, by default those of the terminal."""
        return terminal.table(self.header, [[cell.text for cell in row] for row in self.cells()], width)


@dataclass(frozen=True)
class Text:
    """A paragraph: a "note" on the numbers, a "verdict", "code" to be copied, or without a kind."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Samples:
    """Texts side by side, as pairs of title and text."""

    columns: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Facts:
    """A box of facts, as pairs of name and text."""

    title: str
    rows: Sequence[tuple[str, str]]


Block = Text | Table | Figure | Samples | Facts


@dataclass
class Section:
    """A section of the page."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the section in links."""
        return "-".join(self.title.lower().split())

    def save(self, folder: Path) -> list[Path]:
        """Write the tables and figures as files to a folder and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        return [path for block in self.blocks if isinstance(block, Table | Figure) for path in block.save(folder)]


def number(value: float, digits: int = 4, *, strong: bool = False) -> Cell:
    """Return a cell with `digits` significant digits; a dash for nan, ∞ for inf."""
    if math.isnan(value):
        return Cell(DASH)
    if math.isinf(value):
        return Cell("∞" if value > 0 else f"{MINUS}∞", value, strong=strong)
    is_whole = abs(value) >= 10**digits or value == int(value)
    text = f"{value:,.0f}" if is_whole else f"{value:#.{digits}g}".rstrip(".")
    return Cell(text.replace("-", MINUS) if "e" not in text else text, value, strong=strong)


def value_cell(value: object) -> Cell:
    """Return a cell with the value of a setting: a number, also as text, with 4 significant digits; a dash for None."""
    if value is None:
        return Cell(DASH)
    try:
        exact = float(str(value))
    except ValueError:
        return Cell(str(value), str(value))
    return Cell(f"{exact:.0f}" if exact.is_integer() and abs(exact) < MAX_WHOLE else f"{exact:.4g}", exact)


def _cell(content: Cell | str | int) -> Cell:
    if isinstance(content, Cell):
        return content
    return Cell(content) if isinstance(content, str) else Cell(str(content), content)


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.tests |= {
        kind.__name__.lower(): lambda block, kind=kind: isinstance(block, kind)
        for kind in (Text, Table, Figure, Samples, Facts)
    }
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, lead=lead, sections=sections, theme=THEME)


def write(folder: Path, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write the page, with its tables and figures as files beside it, and return its path."""
    paths = [path for section in sections for path in section.save(folder)]
    assert len({*paths}) == len(paths), f"two blocks write the same file: {paths}"
    path = folder / "report.html"
    path.write_text(render(title, lead, sections), encoding="utf-8")
    return path

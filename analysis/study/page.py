"""The page of the study and its section of the project's README, as Markdown, from the files of results/ alone."""

import re
from pathlib import Path
from typing import Any

from analysis.figures import Figure
from analysis.page import Table
from analysis.report.bootstrap import Difference
from analysis.report.verdict import size_and_interval
from analysis.study import exploratory, figures, further, results, tables

HERE = Path(__file__).parent
PICTURES = HERE / "figures"
MAIN_PARTS = {"text": "TinyStories", "stories": "embedded stories"}
VOCABULARIES = {f"vocabulary_{size}": f"{size:,} tokens" for size in (4096, 10000, 50257)}
SIZES = {"small": "2 x 64", "text": "4 x 128", "large": "6 x 192"}
OPTIMIZERS = {"text": "Muon", "adamw": "AdamW"}
PLANNED = ("text", "stories", *further.GRIDS, *VOCABULARIES, "small", "large", "adamw")


def known(parts: dict[str, str]) -> dict[str, str]:
    """Return the parts that have been run."""
    return {part: label for part, label in parts.items() if part in results.parts()}


def markdown(table: Table) -> str:
    """Return a table as Markdown."""

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = [[f"**{cell.text}**" if cell.strong else cell.text for cell in row] for row in table.cells()]
    dashes = ["---:" if is_numeric else "---" for is_numeric in table.numeric()]
    return "\n".join(line(row) for row in ([*table.header], dashes, *rows))


def in_words(difference: Difference) -> str:
    """Return a difference with its interval as words."""
    size, interval = size_and_interval(difference)
    return f"{size} ({interval})"


def pictures() -> list[Figure]:
    """Draw the figures of the page."""
    main = [*known(MAIN_PARTS)]
    drawn = [figures.contrasts(main), figures.tuning(main), figures.logits()]
    if len(known(VOCABULARIES)) == len(VOCABULARIES):
        drawn.append(figures.effects("vocabulary", VOCABULARIES, "Bits per byte minus cross_entropy", bits=True))
    if len(known(SIZES)) == len(SIZES):
        drawn.append(figures.effects("size", SIZES, "Test nll minus cross_entropy"))
    return drawn


def values() -> dict[str, Any]:
    """Return what the templates show."""
    import pandas as pd

    done = results.parts()
    runs = results.runs()
    return {
        "parts": known(MAIN_PARTS),
        "missing": [part for part in PLANNED if part not in done],
        "has": lambda *names: all(name in done for name in names),
        "counts": runs.groupby(["part", "role", "state"], sort=False).size().reset_index(name="n"),
        "n_runs": len(runs),
        "hours": runs["train/seconds"].sum() / 3600,
        "machines": pd.read_csv(results.FOLDER / "machines.csv"),
        "samples": pd.read_csv(results.FOLDER / "samples.csv").groupby("prompt", sort=False),
        "diverged": results.diverged,
        "contrasts": tables.of_part,
        "tables": tables,
        "exploratory": exploratory,
        "further": further,
        "vocabularies": VOCABULARIES,
        "sizes": SIZES,
        "optimizers": OPTIMIZERS,
    }


def render(template: str) -> str:
    """Return a template of this folder, filled in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"sentence": tables.sentence, "markdown": markdown, "in_words": in_words}
    text = environment.get_template(template).render(**values())
    text = re.sub(r"(?<=\S)[ \n](?=[\w`(=])", " ", text)  # numbers change the length of lines: a paragraph is one line
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

"""The page of the study and its section of the project's README, as Markdown, from the files of results/ alone."""

import re
from pathlib import Path
from typing import Any

from analysis.figures import Figure
from analysis.page import Table
from analysis.study import figures, further, results, tables
from analysis.study.contrasts import BASELINE

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


def pictures() -> list[Figure]:
    """Draw the figures of the page."""
    main = [*known(MAIN_PARTS)]
    drawn = [figures.contrasts(main), figures.tuning(main), figures.logits()]
    if len(known(VOCABULARIES)) == len(VOCABULARIES):
        drawn.append(figures.scaling("vocabulary", VOCABULARIES, "Bits per byte minus cross_entropy", bits=True))
    if len(known(SIZES)) == len(SIZES):
        drawn.append(figures.scaling("size", SIZES, "Test nll minus cross_entropy"))
    return drawn


def values() -> dict[str, Any]:
    """Return what the templates show."""
    import pandas as pd

    runs = results.runs()
    return {
        "baseline": BASELINE,
        "parts": known(MAIN_PARTS),
        "planned": PLANNED,
        "missing": [part for part in PLANNED if part not in results.parts()],
        "runs": runs,
        "runs_of": results.runs,
        "finals": results.finals,
        "contrasts": tables.of_part,
        "scores": lambda part: markdown(tables.scores(part, tables.MAIN)),
        "secondary": lambda part: markdown(tables.scores(part, tables.SECONDARY)),
        "differences": lambda part: markdown(tables.differences(part)),
        "tuning": lambda part: markdown(tables.tuning(part)),
        "overview": lambda part: markdown(tables.overview(part)),
        "maps": lambda: markdown(further.maps()),
        "effect": further.effect,
        "has": lambda *parts: all(part in results.parts() for part in parts),
        "grids": lambda: markdown(further.grids()),
        "tau": further.between_grids,
        "vocabularies": lambda: markdown(further.effects("vocabularies", VOCABULARIES, bits=True)),
        "sizes": lambda: markdown(further.effects("sizes", SIZES)),
        "optimizers": lambda: markdown(further.effects("optimizers", OPTIMIZERS)),
        "samples": pd.read_csv(results.FOLDER / "samples.csv").groupby("prompt", sort=False),
        "machines": pd.read_csv(results.FOLDER / "machines.csv"),
    }


def render(template: str, **more: Any) -> str:
    """Return a template of this folder, filled in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["sentence"] = tables.sentence
    return re.sub(r"\n{3,}", "\n\n", environment.get_template(template).render(**values(), **more)).strip() + "\n"

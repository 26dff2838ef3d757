"""The pages of the study and its section of the project's README, as Markdown, from the files of results/ alone."""

import re
from pathlib import Path
from typing import Any

from analysis.figures import Figure
from analysis.page import Table
from analysis.report.components import enumeration
from analysis.study import exploratory, figures, further, results, tables

HERE = Path(__file__).parent
PICTURES = HERE / "figures"
PAGES = {"README.md": "page.md.j2", "samples.md": "samples.md.j2"}
MAIN_PARTS = {"text": "TinyStories", "stories": "embedded stories"}
VOCABULARIES = {f"vocabulary_{size}": f"{size:,} tokens" for size in (4096, 10000, 50257)}
SIZES = {"small": "2 x 64", "text": "4 x 128", "large": "6 x 192"}
OPTIMIZERS = {"text": "Muon", "adamw": "AdamW"}
FURTHER_PARTS = {
    "adamw": "AdamW",
    "small": "2 layers, width 64",
    "large": "6 layers, width 192",
    **{part: f"vocabulary of {label}" for part, label in VOCABULARIES.items()},
}
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


def answer() -> str:
    """Return the first sentence of the answer: whether squentropy helps on the primary text."""
    found = [each for each in tables.of_part(results.PRIMARY) if each.arm.startswith("squentropy")]
    if better := [f"`{each.arm}`" for each in found if each.finding == "better"]:
        return f"Yes, with a fitting weight: {enumeration(better)} has a lower test nll than cross-entropy."
    return f"We found no benefit: none of the {len(found)} weights reliably lowers the test nll."


def edges(parts: dict[str, str]) -> str:
    """Return a sentence on the arms whose best learning rate is the lowest or highest one, if there are any."""
    found = {label: results.at_edge(part) for part, label in parts.items()}
    arms = [f"{', '.join(f'`{arm}`' for arm in at_edge)} ({label})" for label, at_edge in found.items() if at_edge]
    if not arms:
        return ""
    return (
        f"The best learning rate is the lowest or highest that was tried, so a better one may exist: {'; '.join(arms)}."
    )


def machines() -> list[tuple[dict[str, str], list[str]]]:
    """Return the machines with their versions and the hash of the program, and the parts of each with their commits."""
    import pandas as pd

    frame = pd.read_csv(results.FOLDER / "machines.csv", dtype=str, keep_default_na=False).set_index("part")
    found: list[tuple[dict[str, str], list[str]]] = []
    for part, runs in results.runs().groupby("part", sort=False):
        machine = {"code": ", ".join(runs["program"].unique()), **frame.loc[str(part)].to_dict()}
        if machine not in [other for other, _ in found]:
            found.append((machine, []))
        parts = next(parts for other, parts in found if other == machine)
        commits = ", ".join(commit[:7] for commit in runs["commit"].unique())
        parts.append(f"{part} (commit {commits})")
    return found


def pictures() -> list[Figure]:
    """Draw the figures of the page."""
    main = known(MAIN_PARTS)
    drawn = [figures.contrasts(main), figures.tuning(main), figures.logits()]
    if len(known(VOCABULARIES)) == len(VOCABULARIES):
        drawn.append(figures.effects("vocabulary", VOCABULARIES, bits=True))
    if len(known(SIZES)) == len(SIZES):
        drawn.append(figures.effects("size", SIZES))
    return drawn


def values() -> dict[str, Any]:
    """Return what the templates show."""
    done = results.parts()
    runs = results.runs()
    return {
        "parts": known(MAIN_PARTS),
        "missing": [part for part in PLANNED if part not in done],
        "has": lambda *names: all(name in done for name in names),
        "counts": runs.groupby(["part", "role", "state"], sort=False).size().reset_index(name="n"),
        "n_runs": len(runs),
        "hours": runs["train/seconds"].sum() / 3600,
        "n_parameters": runs[runs["role"] == "final"]["parameters"],
        "answer": answer(),
        "machines": machines(),
        "samples": exploratory.derived("samples.csv").groupby("prompt", sort=False),
        "edges": edges,
        "effect": lambda arm, part=results.PRIMARY: further.effect(part, arm).effect,
        "diverged": results.diverged,
        "contrasts": tables.of_part,
        "tables": tables,
        "exploratory": exploratory,
        "further": further,
        "vocabularies": VOCABULARIES,
        "sizes": SIZES,
        "optimizers": OPTIMIZERS,
        "further_parts": known(FURTHER_PARTS),
    }


def render(template: str) -> str:
    """Return a template of this folder, filled in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"sentence": tables.sentence, "markdown": markdown, "in_words": tables.in_words}
    text = environment.get_template(template).render(**values())
    text = re.sub(r"(?<=\S)\n *(?=[\w`(=\[])", " ", text)  # numbers change the length of lines: a paragraph is one line
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

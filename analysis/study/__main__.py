"""Write the pages of the study, their figures, and the section "Results" of README.md again, from results/ alone.

python -m analysis.study
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.study import page
from nanosq import command, terminal
from nanosq.filesystem import atomic_write

README = Path("README.md")
BEGIN, END = "<!-- python -m analysis.study writes this section -->\n", "<!-- end of the section -->\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files and return the exit status."""
    terminal.parser("analysis.study", __doc__).parse_args(arguments)
    return command.run(write)


def write() -> None:
    """Write the pages and the figures, and the section of the README if the current folder is a checkout."""
    page.PICTURES.mkdir(exist_ok=True)
    for figure in page.pictures():
        (page.PICTURES / f"{figure.name}.png").write_bytes(figure.png)
    for name, template in page.PAGES.items():
        _write(page.HERE / name, page.render(template))
    if README.exists():
        _write(README, with_results(README.read_text(encoding="utf-8")))


def with_results(readme: str) -> str:
    """Return a README with its section of results written again.

    Raises:
        ValueError: It has no such section.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{README} lacks the lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + page.render("readme.md.j2") + END + after


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
    print(path)


if __name__ == "__main__":
    sys.exit(main())

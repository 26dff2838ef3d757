"""A comparison with hydra/sweeper=compare: what was compared, with what budget, and which contender is better.

python -m analysis.report.comparison         the page of the comparison that was started last, into report/
python -m analysis.report.comparison NAME    the page of the comparison of this name
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from analysis import cli, page, runs
from analysis.page import Block, Section, Text
from analysis.report import borders, calibration, compare, curves, opening, samples, scores, stories
from analysis.report.comparison_figures import tuning_curves
from analysis.report.comparison_tables import best_settings, budget
from analysis.report.comparison_texts import description, progress, without_result
from analysis.report.contenders import Comparison, load
from analysis.report.matched import Matched
from analysis.report.optuna_storage import NoStudy
from analysis.report.search import STORAGE
from nanosq import command, option
from nanosq.installation import program

COMMAND = f"{program()} -m hydra/sweeper=compare loss=cross_entropy,squentropy"
LUCK = (
    "The interval covers the choice of seeds and stories. It does not cover the luck of the tuning: with few trials, "
    "one contender may by chance get a worse setting than another. A larger hydra.sweeper.n_trials makes this less "
    "likely."
)


def status(comparison: Comparison) -> list[str]:
    """Return sentences on what is not finished, and on contenders without a result."""
    return [*([] if comparison.is_finished else [progress(comparison)]), *without_result(comparison)]


def section(comparison: Comparison, matched: Matched) -> Section:
    """Return the section on the tuning of a comparison and its confirmation, which is `matched`."""
    settings = matched.settings
    blocks: list[Block] = [*(Text(text) for text in description(comparison)), budget(comparison, settings)]
    if len(settings) > 1:
        blocks.append(Text(LUCK, "note"))
    blocks += [tuning_curves(comparison), best_settings(comparison)]
    none = "No best value of a numeric setting lies at the border of its space."
    blocks += [Text(text, "note") for text in borders.sentences(comparison) or [none]]
    study = f"'{comparison.name}/{comparison.contenders[0].label}'"
    blocks.append(Text(f"All trials of a contender: {program('analysis.report.search')} --study {study}", "note"))
    how = "This command continues the comparison. With a larger n_trials or more seeds, it trains what is missing:"
    return Section("Tuning and confirmation", [*blocks, Text(how), Text(comparison.command, "code")])


def details(matched: Matched, *, against: str = "steps") -> list[Section]:
    """Return the sections on the runs of any comparison. `against` is the x axis of the curves."""
    settings = matched.settings
    if not settings:
        return []
    return [
        compare.section(matched),
        scores.section(settings),
        curves.section(settings, against=against),
        *(part.section(settings) for part in (calibration, samples, stories)),
    ]


def show(name: str | None, *, storage: str, tracking_uri: str | None, experiment: str | None, folder: Path) -> None:
    """Write the page of a comparison, report.html, to a folder. Print its path, the result and the budget.

    None stands for the comparison that was started last, and for the default store or experiment of MLflow.

    Raises:
        ValueError: The storage or the store cannot be read, or there is no such comparison.
    """
    try:
        comparison = load(storage, runs.load(tracking_uri, experiment), name)[0]
    except NoStudy as error:
        raise ValueError(f"{error} Start a comparison: {COMMAND}") from error
    matched = comparison.matched()
    first = opening.section(matched, status(comparison))
    lead = f"Comparison {comparison.name}, read on {time.strftime('%Y-%m-%d %H:%M')}."
    sections = [first, section(comparison, matched), *details(matched)]
    path = page.write(folder, matched.title, lead, sections)
    cli.tell(first)
    print(budget(comparison, matched.settings).text(), path, sep="\n\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = cli.parser(__doc__, "[NAME]", module="analysis.report.comparison")
    parser.add_argument(
        "name", nargs="?", type=option.name, metavar="NAME", help="default: the comparison that was started last"
    )
    parser.add_argument(
        "--storage", type=option.name, default=STORAGE, metavar="URL", help="storage of Optuna; default: %(default)s"
    )

    def work() -> None:
        options = parser.parse_args(arguments)
        place = {"storage": options.storage, "tracking_uri": options.tracking_uri, "experiment": options.experiment}
        show(options.name, **place, folder=options.out)

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())

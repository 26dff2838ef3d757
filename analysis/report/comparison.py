"""A comparison with hydra/sweeper=compare: what was compared, with what budget, and which contender is better.

python -m analysis.report.comparison                                       the comparison that was started last
python -m analysis.report.comparison NAME --storage sqlite:///optuna.db    the comparison of this name
"""

import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from analysis import cli, page, runs
from analysis.page import Block, Section, Table, Text
from analysis.recorded_run import RecordedRun
from analysis.report import borders, calibrated, calibration, compare, curves, samples, scores, selection, stories
from analysis.report.comparison_figures import tuning_curves
from analysis.report.comparison_tables import best_settings, budget
from analysis.report.comparison_texts import description, progress, without_result
from analysis.report.contenders import Comparison, load
from analysis.report.optuna_storage import NoStudy
from analysis.report.search import STORAGE
from analysis.report.verdict import Verdict, other_keys, verdict
from analysis.runs import RecordedSetting

COMMAND = "python run.py -m hydra/sweeper=compare loss=cross_entropy,squentropy"
MORE_SEEDS = "hydra.sweeper.seeds=5"
WIDTH = 80  # characters of a line that `show` prints
LUCK = (
    "The interval covers the choice of seeds and stories. It does not cover the luck of the tuning: with few trials, "
    "one contender may by chance get a worse setting than another. A larger hydra.sweeper.n_trials makes this less "
    "likely."
)


def section(comparison: Comparison) -> Section:
    """Return the section on a comparison."""
    settings = comparison.settings()
    verdicts, notes = _verdicts(comparison, settings)
    blocks: list[Block] = []
    if not comparison.is_finished:
        blocks.append(Text(progress(comparison), "verdict"))
    blocks += [Text(result.sentence, "verdict") for result in verdicts]
    blocks += [Text(text, "verdict") for text in without_result(comparison)]
    blocks += [*(Text(text) for text in description(comparison)), budget(comparison, settings)]
    blocks += [Text(note, "note") for note in notes]
    if settings:
        table = scores.differences(settings, "comparison-confirmation", "Confirmation: scores on the test split")
        blocks += [table, Text(scores.DIFFERENCES, "note"), Text(scores.SCALE, "note")]
    if verdicts:
        pairs = compare.pairs(verdicts, "comparison-pairs")
        blocks += [pairs, Text(compare.METHOD, "note"), Text(LUCK, "note")]
    blocks += [tuning_curves(comparison), best_settings(comparison)]
    none = "No best value of a numeric setting lies at the border of its space."
    blocks += [Text(text, "note") for text in borders.sentences(comparison) or [none]]
    study = f"'{comparison.name}/{comparison.contenders[0].label}'"
    blocks.append(Text(f"All trials of a contender: python -m analysis.report.search --study {study}", "note"))
    how = "This command continues the comparison. With a larger n_trials or more seeds, it trains what is missing:"
    return Section("Comparison", [*blocks, Text(how), Text(comparison.command, "code")])


def _verdicts(comparison: Comparison, settings: Mapping[str, RecordedSetting]) -> tuple[list[Verdict], list[str]]:
    """Return the verdict on each pair of contenders, and notes on all verdicts."""
    compared = [*comparison.keys, *comparison.common_axes]
    if "experiment" in comparison.keys:  # a preset is a contender with all that it sets
        compared += runs.differing([setting.params for setting in settings.values()])
    verdicts: list[Verdict] = []
    notes: list[str] = []
    for a, b in combinations(settings, 2):
        try:
            result = verdict(settings[a], settings[b], labels=(a, b), compared=compared, more_seeds=MORE_SEEDS)
        except ValueError as error:
            notes.append(f"{error}.")
            continue
        verdicts.append(result)
        notes += [*result.notes, calibrated.disagreement(result, settings[a], settings[b])]
        if not runs.differing([settings[a].params, settings[b].params]):
            notes.append(f"{a} and {b} are the same setting.")
    pairs = combinations(settings.values(), 2)
    if verdicts and not any(other_keys(a, b, compared) for a, b in pairs):
        besides = f"Besides {', '.join(comparison.keys)} and the settings that were tuned for every contender"
        notes.append(f"{besides}, the contenders do not differ.")
    notes += selection.unequal_seeds(settings).values() if settings else []
    return verdicts, list(dict.fromkeys(note for note in notes if note))


def show(name: str, *, storage: str, tracking_uri: str | None, experiment: str | None, folder: Path) -> None:
    """Write the page of a comparison, report.html, to a folder. Print its path, the verdicts and the notes on them.

    None stands for the default store or experiment of MLflow.

    Raises:
        ValueError: The storage or the store cannot be read, or there is no such comparison.
    """
    comparison = find(storage, runs.load(tracking_uri, experiment), name)
    compared, settings = section(comparison), comparison.settings()
    sections = [compared]
    if settings:
        sections.append(Section("Runs", [*scores.settings_and_runs(settings)]))
        sections += [part.section(settings) for part in (curves, calibration, samples, stories)]
    labels = [contender.label for contender in comparison.contenders]
    title = f"{', '.join(labels[:-1])} or {labels[-1]}: which is better?"
    lead = f"Comparison {name}, read on {time.strftime('%Y-%m-%d %H:%M')}."
    path = page.write(folder, title, lead, sections)
    for block in compared.blocks:
        if isinstance(block, Text) and block.kind in ("verdict", "note"):
            print(textwrap.fill(block.text, WIDTH, break_long_words=False, break_on_hyphens=False), end="\n\n")
        elif isinstance(block, Table):
            if block.name != "comparison-contenders":  # it and what follows are details
                break
            print(block.text(WIDTH), end="\n\n")
    print(path)


def find(storage: str, all_runs: Sequence[RecordedRun], name: str | None = None) -> Comparison:
    """Return a comparison as `load` does, but raise ValueError also if there is none."""
    try:
        return load(storage, all_runs, name)
    except NoStudy as error:
        raise ValueError(f"{error} Start a comparison: {COMMAND}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = cli.parser(__doc__, "[NAME]", module="analysis.report.comparison")
    parser.add_argument("name", nargs="?", metavar="NAME", help="default: the comparison that was started last")
    parser.add_argument("--storage", default=STORAGE, metavar="URL", help="storage of Optuna; default: %(default)s")
    options = parser.parse_args(arguments)

    def work() -> None:
        all_runs = runs.load(options.tracking_uri, options.experiment)
        cli.show(section(find(options.storage, all_runs, options.name)), options.out)

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())

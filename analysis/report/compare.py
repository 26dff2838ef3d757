"""Verdicts on losses, or on two runs, with confidence intervals, from the scores of the test stories.

python -m analysis.report.compare RUN_A RUN_B                two runs of MLflow, by id, beginning of an id, or name
python -m analysis.report.compare RUN_A RUN_B --out DIR      write figures and tables to DIR instead of comparison/

A run stands for its setting: finished runs that differ from it only in their seed are included, if both settings have
this seed.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from analysis import cli, runs
from analysis.page import DASH, Block, Cell, Row, Section, Table, Text, number
from analysis.recorded_run import RecordedRun
from analysis.report import common_seeds, components, scores, stories, story_figures
from analysis.report.matched import DRAWS, Matched
from analysis.report.verdict import Verdict, decimals, signed, verdict
from analysis.runs import RecordedSetting
from nanosq import command, option

MAX_COLUMNS = 3  # contenders in the table of all differences
SPACE = "\N{NO-BREAK SPACE}"
METHOD = (
    "Differences are the test nll of the second minus that of the first; negative means that the second is better. The "
    "95 % confidence intervals are from a paired bootstrap over seeds and stories. They are not corrected for multiple "
    "comparisons."
)


def section(matched: Matched) -> Section:
    """Return the verdicts of a comparison: those on each setting and the reference, and the numbers of all pairs."""
    on_base = matched.against(matched.order[0], DRAWS)
    blocks: list[Block] = []
    if len(on_base) > 1:  # the opening has a single one
        blocks += [Text(result.sentence, "verdict") for result in on_base]
    if on_base:
        verdicts = [matched.verdict(a, b) for a, b in combinations(matched.order, 2)]
        blocks += [pairs(verdicts), Text(METHOD, "note")]
    if 1 < len(matched.order) <= MAX_COLUMNS:
        table = scores.differences({label: matched.settings[label] for label in matched.order}, "Differences by score")
        blocks += [table, Text(scores.DIFFERENCES, "note")]
    return Section("Differences", [*blocks, *_figures(matched.settings, on_base, [*matched.settings])])


def section_on_two(a: RecordedSetting, b: RecordedSetting) -> Section:
    """Return the comparison of two settings, with their scores and differences.

    Raises:
        ValueError: The settings are the same, or they were scored on different text.
    """
    keys, compared = sorted(runs.differing([a.params, b.params])), components.compared([a, b])
    if not keys and {run.program for run in a.runs} == {run.program for run in b.runs}:
        raise ValueError(f"both runs have the same setting of {a.loss}: name runs that differ in more than their seed")
    labels = components.labels([a, b], *compared[:1])
    both = common_seeds.on_common_seeds(dict(zip(labels, (a, b), strict=True)))
    result = verdict(*both.values(), labels=[*both], compared=compared)
    settings = [[key, *(setting.params.get(key, DASH) for setting in both.values())] for key in keys]
    blocks: list[Block] = [
        Text(result.text, "verdict"),
        scores.differences(both),
        Text(scores.DIFFERENCES, "note"),
        Table("settings", ["setting", *both], settings),
    ]
    return Section("Comparison", [*blocks, *_figures(both, [result], list(both)), *stories.section(both).blocks])


def setting_of(all_runs: Sequence[RecordedRun], run: RecordedRun) -> RecordedSetting:
    """Return the setting of a run, with all its seeds. Raise ValueError if the run has not finished."""
    if run.state != "finished":
        raise ValueError(f"run {run.label} is {run.state}: only finished runs have test scores")
    same_program = (other for other in all_runs if other.tags.get("code") == run.tags.get("code"))
    return runs.settings(other for other in same_program if other.key == run.key)[0]


def pairs(verdicts: Sequence[Verdict]) -> Table:
    """Return a table of verdicts, with a row for each pair of settings."""
    rows: list[Row] = []
    for result in verdicts:
        cells = [Cell(DASH)] * 5
        if difference := result.difference:
            digits, per_byte = decimals(difference), difference.effect * result.bits_per_nat
            low, high = signed(difference.low, digits), signed(difference.high, digits)
            cells = [
                Cell(signed(difference.effect, digits), difference.effect),
                Cell(f"{low} to {high}".replace(" ", SPACE), f"{difference.low} to {difference.high}"),
                Cell(signed(per_byte, digits), per_byte),
                number(stories.exp(difference.effect)),
                number(difference.n_stories),
            ]
        none = "more differs" if result.besides else "no difference found"
        better = (result.better or none) if result.has_enough_seeds else "not enough runs"
        rows.append([result.a, result.b, better, *cells, len(result.seeds)])
    header = ["first", "second", "better", "difference, nats/token", "95 % interval", "bits/byte", "perplexity ratio"]
    return Table("pairs", [*header, "stories", "common seeds"], rows, "All pairs")


def _figures(settings: Mapping[str, RecordedSetting], verdicts: Sequence[Verdict], order: Sequence[str]) -> list[Block]:
    """Return the figures of the story scores. `order` gives the labels their colors."""
    scored = {label: by_seed for label, setting in settings.items() if (by_seed := stories.read_seeds(setting)[0])}
    if not scored:
        return [Text(f"No run has {stories.FILE}, the scores of the test stories. Train again: {runs.TRAIN}", "note")]

    def nats(label: str, seeds: Sequence[int]) -> story_figures.Nats:
        return np.mean([scored[label][seed].nats for seed in seeds], axis=0)

    blocks: list[Block] = [
        story_figures.distributions({label: nats(label, [*by_seed]) for label, by_seed in scored.items()}, order)
    ]
    for result in verdicts:
        if result.difference is not None:
            pair = [nats(label, result.seeds or [min(scored[label])]) for label in (result.a, result.b)]
            blocks.append(story_figures.differences((result.a, result.b), (pair[0], pair[1]), order.index(result.b)))
    return blocks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = cli.parser(__doc__, "RUN RUN", module="analysis.report.compare", out="comparison")
    parser.add_argument(
        "run", nargs=2, type=option.name, metavar="RUN", help="id, beginning of an id, or name of a finished run"
    )

    def work() -> None:
        options = parser.parse_args(arguments)
        all_runs = runs.load(options.tracking_uri, options.experiment)
        if not all_runs:
            raise ValueError(f"experiment {options.experiment} has no runs: set --tracking-uri or --experiment")
        a, b = (setting_of(all_runs, runs.pick(all_runs, wanted)) for wanted in options.run)
        cli.show(section_on_two(a, b), options.out)

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())

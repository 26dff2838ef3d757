"""Comparison of losses: verdicts with confidence intervals, from the score of each test story.

python -m analysis.report.compare RUN_A RUN_B                two runs of MLflow, by id, the beginning of one, or name
python -m analysis.report.compare RUN_A RUN_B --out DIR      figures and tables to DIR instead of comparison/

Each run stands for its setting: all finished runs that differ from it in nothing but their seed are taken too.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations

from analysis import cli, runs
from analysis.figures import Figure
from analysis.page import DASH, Block, Cell, Section, Table, Text, number
from analysis.report import stories, story_figures
from analysis.report.verdict import Verdict, decimals, signed, verdict

SCORES = {  # metric: unit, factor
    "test/nll": ("nats a token", 1),
    "test/perplexity": ("", 1),
    "test/bits_per_byte": ("", 1),
    "test/accuracy": ("%", 100),
    "test/ece": ("%", 100),
    "test/excess_nll": ("nats a token above the floor", 1),
    "train/tokens": ("", 1),
}
DRAWS, FEWER_DRAWS = 10_000, 2_000  # for pairs that have no verdict of their own: of twelve losses there are 55
SPACE = "\N{NO-BREAK SPACE}"
METHOD = (
    "A difference is the second's test nll less the first's: below zero the second is better. The 95 % interval is a "
    "paired bootstrap over seeds and stories, with Student's quantiles for so few seeds. Each pair has its own, and "
    "nothing is corrected for the number of pairs."
)


def section(chosen: Mapping[str, runs.RecordedSetting]) -> Section:
    """Return the verdict on each loss against cross-entropy, or against the loss with the lowest validation nll."""
    if not chosen:
        return Section("Verdict", [Text(f"No run has finished with a validation score: {runs.TRAIN}", "note")])
    base = runs.BASELINE if runs.BASELINE in chosen else min(chosen, key=lambda loss: chosen[loss].mean("val/nll"))
    losses = {base: chosen[base], **chosen}
    verdicts: list[Verdict] = []
    notes: list[Block] = []
    for a, b in combinations(losses, 2):
        try:
            verdicts.append(verdict(losses[a], losses[b], n_draws=DRAWS if a == base else FEWER_DRAWS))
        except ValueError as error:
            notes.append(Text(f"{error}.", "note"))
    if len(losses) == 1:
        notes.append(Text(f"Only {base} has finished runs, a verdict needs two losses: {runs.TRAIN}", "note"))
    told: list[Block] = [Text(each.text, "verdict") for each in verdicts if each.a == base]
    pairs: list[Block] = [_pairs(verdicts), Text(METHOD, "note")] if verdicts else []
    return Section("Verdict", [*told, *notes, *pairs, *_of_stories(losses, verdicts, list(chosen))])


def of_stories(chosen: Mapping[str, runs.RecordedSetting]) -> Section:
    """Return a section with the easiest and the hardest stories of each loss, for its first seed."""
    blocks: list[Block] = []
    for loss, setting in chosen.items():
        scored, left_out = stories.by_seed(setting)
        blocks += [Text(why, "note") for why in left_out]
        if scored:
            blocks += stories.extremes(loss, min(scored), scored[min(scored)])
    return Section("Stories", blocks)


def of_two(a: runs.RecordedSetting, b: runs.RecordedSetting) -> Section:
    """Return the comparison of two settings, with their scores and differences. Raise ValueError as `verdict` does."""
    each = verdict(a, b)
    both = {each.a: a, each.b: b}
    keys = runs.differing([a.params, b.params])
    settings = [[key, *(setting.params.get(key, DASH) for setting in both.values())] for key in keys]
    blocks: list[Block] = [
        Text(each.text, "verdict"),
        Table("scores", ["mean (lowest to highest seed)", *both], _scores(list(both.values()))),
        Table("settings", ["they differ in", *both], settings),
    ]
    return Section("Comparison", [*blocks, *_of_stories(both, [each], list(both)), *of_stories(both).blocks])


def setting_of(found: Sequence[runs.RecordedRun], run: runs.RecordedRun) -> runs.RecordedSetting:
    """Return the setting of a run, with all its seeds. Raise ValueError if the run has not finished."""
    if run.state != "finished":
        raise ValueError(f"run {run.id[:8]} ({run.name}) is {run.state}: only finished runs have test scores")
    alike = [each for each in found if (each.text_hash, each.setting) == (run.text_hash, run.setting)]
    return runs.settings(alike)[0]


def _pairs(verdicts: Sequence[Verdict]) -> Table:
    rows: list[list[Cell | str]] = []
    for each in verdicts:
        found, differences = each.difference, [Cell(DASH)] * 5
        if found is not None:
            digits, per_byte = decimals(found), found.effect * each.bits_per_nat
            low, high = signed(found.low, digits), signed(found.high, digits)
            differences = [
                Cell(signed(found.effect, digits), found.effect),
                Cell(f"{low} to {high}".replace(" ", SPACE), f"{found.low} to {found.high}"),
                Cell(signed(per_byte, digits), per_byte),
                number(stories.exp(found.effect)),
                Cell(f"{found.n_stories:,}", found.n_stories),
            ]
        better = (each.better or "no difference found") if each.enough else "not enough runs"
        rows.append([each.a, each.b, better, *differences, Cell(f"{len(each.seeds)}", len(each.seeds))])
    header = ["first", "second", "better", "difference, nats/token", "95 % interval", "bits/byte", "perplexity ratio"]
    return Table("pairs", [*header, "stories", "common seeds"], rows, "Every pair")


def _scores(both: Sequence[runs.RecordedSetting]) -> list[list[Cell]]:
    rows = [
        [Cell(f"{metric}, {unit}" if unit else metric), *(_range(setting, metric, factor) for setting in both)]
        for metric, (unit, factor) in SCORES.items()
    ]
    seeds = [[f"{run.seed}" for run in setting.runs] for setting in both]
    return [*rows, [Cell("seeds"), *(Cell(", ".join(each)) for each in seeds)]]


def _range(setting: runs.RecordedSetting, metric: str, factor: float) -> Cell:
    values = [factor * run.metric(metric) for run in setting.runs]
    mean = number(sum(values) / len(values))
    if min(values) == max(values) or math.isnan(sum(values)):
        return mean
    return Cell(f"{mean.text} ({number(min(values)).text} to {number(max(values)).text})", mean.value)


def _of_stories(
    settings: Mapping[str, runs.RecordedSetting], verdicts: Sequence[Verdict], order: Sequence[str]
) -> list[Block]:
    """Return figures of all settings whose runs have the scores of their stories.

    order: of the labels among the series of the page.
    """
    found = {label: scored for label, setting in settings.items() if (scored := stories.by_seed(setting)[0])}
    if not found:
        return [Text(f"No run has {stories.FILE}, the score of each test story: train again, {runs.TRAIN}", "note")]
    base = next(iter(settings))
    blocks: list[Block] = [
        story_figures.distributions({label: stories.mean_nats(scored) for label, scored in found.items()}, order)
    ]
    for each in verdicts:
        if each.a == base and each.difference is not None:
            blocks.append(_differences(each, found[each.a], found[each.b], order.index(each.b)))
    return blocks


def _differences(each: Verdict, of_a: stories.BySeed, of_b: stories.BySeed, number_b: int) -> Figure:
    """Return the figure of two losses over the seeds of their verdict."""
    seeds_a, seeds_b = (each.seeds, each.seeds) if each.seeds else ([min(of_a)], [min(of_b)])
    nats_a = stories.mean_nats({seed: of_a[seed] for seed in seeds_a})
    nats_b = stories.mean_nats({seed: of_b[seed] for seed in seeds_b})
    return story_figures.differences((each.a, each.b), (nats_a, nats_b), number_b)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = cli.parser(__doc__, out="comparison")
    parser.add_argument("run", nargs=2, metavar="RUN")
    chosen = parser.parse_args(arguments)

    def work() -> None:
        found = runs.load(chosen.tracking_uri, chosen.experiment)
        if not found:
            raise ValueError(f"experiment {chosen.experiment} has no runs: set --tracking-uri or --experiment")
        made = of_two(*(setting_of(found, runs.pick(found, wanted)) for wanted in chosen.run))
        chosen.out.mkdir(parents=True, exist_ok=True)
        for part in made.files():
            part.save(chosen.out)
        for block in made.blocks[:3]:  # what comes next are figures, and texts too wide for a terminal
            if isinstance(block, Text | Table):
                print(block.text if isinstance(block, Text) else f"\n{block.text()}")
        print(f"\nfigures and tables: {chosen.out}")

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())

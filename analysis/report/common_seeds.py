"""The seeds that settings have in common: all sections of the page show the runs of these seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from analysis.report import stories
from analysis.runs import BASELINE, RecordedSetting

ENOUGH_SEEDS = 3  # seeds from which on the mean of a setting counts
NO_STORIES = "without scores of the stories"


def reference(rows: Mapping[str, RecordedSetting]) -> str:
    """Return the label of cross-entropy or, without it, of the row with the lowest validation nll.

    A single run is the reference only if there is nothing else: its nll may be low by luck, and others have more seeds
    in common.
    """

    def rank(label: str) -> tuple[bool, bool, float]:
        setting = rows[label]
        return len(setting.runs) < 2, setting.loss != BASELINE, setting.mean("val/nll")

    return min(rows, key=rank)


def on_common_seeds(rows: Mapping[str, RecordedSetting]) -> dict[str, RecordedSetting]:
    """Return the rows with the runs of the seeds that they have in common, so that means can be compared.

    A seed counts if its run has the scores of its stories, on which a verdict is based. A row that would leave fewer
    than three seeds to the others keeps all of its runs; so do all rows if none shares a seed with the reference.
    """
    if len(rows) < 2:
        return dict(rows)
    base = reference(rows)
    seeds = {label: set(stories.read_seeds(setting)[0]) for label, setting in rows.items()}
    others = sorted((label for label in rows if label != base), key=lambda label: -len(seeds[label] & seeds[base]))
    enough = min(ENOUGH_SEEDS, len(seeds[others[0]] & seeds[base]))
    common, compared = seeds[base], [base]
    for label in others:
        if len(common & seeds[label]) >= enough:
            common = common & seeds[label]
            compared.append(label)

    if not enough:
        return dict(rows)
    result = {}
    for label, setting in rows.items():
        reasons = {**setting.left_out}
        for run in setting.runs:
            if label in compared and run.seed not in common:
                lacking = [other for other in compared if run.seed not in seeds[other]]
                more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
                reasons[run.seed] = NO_STORIES if label in lacking else f"not scored with {lacking[0]}{more}"
        kept = [run for run in setting.runs if run.seed not in reasons]
        result[label] = replace(setting, runs=kept, left_out=dict(sorted(reasons.items())))
    return result


def left_out(label: str, setting: RecordedSetting) -> list[str]:
    """Return a sentence for each reason for which seeds of a setting are left out. A run that is running is none."""
    by_reason: dict[str, list[int]] = {}
    for seed, reason in setting.left_out.items():
        by_reason.setdefault(reason, []).append(seed)
    by_reason.pop("running", None)
    return [f"Left out: {_seeds(seeds)} of {label} ({reason})." for reason, seeds in by_reason.items()]


def unequal_seeds(rows: Mapping[str, RecordedSetting]) -> dict[str, str]:
    """Return a sentence for each row whose runs do not have the seeds of the reference, by the label of the row."""
    base = reference(rows)
    by_label = {label: _seeds([run.seed for run in setting.runs]) for label, setting in rows.items()}
    return {
        label: f"{label} is shown with {seeds} and {base} with {by_label[base]}, because they have too few scored "
        "seeds in common: their means differ by the seeds, too."
        for label, seeds in by_label.items()
        if seeds != by_label[base]
    }


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"

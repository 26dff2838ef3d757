"""The settings that are compared, and their runs: the rows of Table 1, with the same seeds in every section."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from analysis.recorded_run import RecordedRun, normal
from analysis.report import stories
from analysis.runs import BASELINE, RESULTS, RecordedSetting, by_setting, differing, settings

ENOUGH_SEEDS = 3  # seeds from which on the mean of a setting counts
MAX_ROWS = 8  # of one loss; a search of its parameters draws more values
NO_STORIES = "without scores of the stories"
RULE = (
    "A loss has a row for each value of its own parameters (loss.*). "
    f"With more than {MAX_ROWS} values, only those with the most seeds have a row; if these are still more than "
    f"{MAX_ROWS}, only the best one. Other parameters are chosen by the lowest mean validation nll."
)


def choose(all_runs: Sequence[RecordedRun]) -> dict[str, RecordedSetting]:
    """Return the settings to compare by their label, with the runs of their common seeds.

    See RULE. Within a row, only settings with the most seeds are candidates, where three seeds are as good as more,
    because the best of many single runs is partly lucky. A setting in which a seed diverged is chosen only if there is
    no other. Settings without test scores, as those of the tuning trials of a comparison, are left out.

    Args:
        all_runs: Runs on one text, in any state.
    """
    by_loss: dict[str, list[RecordedSetting]] = {}
    for setting in settings(all_runs):
        if not math.isnan(setting.mean("val/nll") + setting.mean("test/nll")):
            by_loss.setdefault(setting.loss, []).append(setting)
    tried = [group[0].loss for group in by_setting(run for run in all_runs if run.state in RESULTS)]
    rows = [replace(row, n_tried=tried.count(row.loss)) for loss in by_loss.values() for row in _rows(loss)]
    return on_common_seeds(dict(zip(labels(rows), rows, strict=True)))


def labels(compared: Sequence[RecordedSetting]) -> list[str]:
    """Return the loss of each setting, with those of its parameters in which settings of this loss differ.

    Settings that differ only otherwise are told apart by a letter.
    """
    names = []
    for setting in compared:
        own = _own(setting)
        keys = differing([_own(other) for other in compared if other.loss == setting.loss])
        names.append(" ".join([setting.loss, *(f"{key}={own.get(key, 'none')}" for key in keys)]))
    return [f"{name} {chr(ord('A') + i)}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def reference(rows: Mapping[str, RecordedSetting]) -> str:
    """Return the label of cross-entropy or, without it, of the row with the lowest validation nll.

    A single run is the reference only if there is nothing else, because its nll may be low by luck.
    """

    def rank(label: str) -> tuple[bool, bool, float]:
        setting = rows[label]
        return setting.loss != BASELINE, len(setting.runs) < 2, setting.mean("val/nll")

    return min(rows, key=rank)


def on_common_seeds(rows: Mapping[str, RecordedSetting]) -> dict[str, RecordedSetting]:
    """Return the rows with the runs of the seeds that they have in common, so that means can be compared.

    A seed counts if its run has the scores of its stories, on which a verdict is based. A row that would leave fewer
    than two seeds to the others keeps all of its runs; so do all rows if none shares a seed with the reference.
    """
    if len(rows) < 2:
        return dict(rows)
    base = reference(rows)
    seeds = {label: set(stories.read_seeds(setting)[0]) for label, setting in rows.items()}
    others = sorted((label for label in rows if label != base), key=lambda label: -len(seeds[label] & seeds[base]))
    enough = min(2, len(seeds[others[0]] & seeds[base]))
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
    """Return a sentence for each reason for which seeds of a setting are left out."""
    by_reason: dict[str, list[int]] = {}
    for seed, reason in setting.left_out.items():
        by_reason.setdefault(reason, []).append(seed)
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


def effort(rows: Iterable[RecordedSetting]) -> str:
    """Return a sentence on the number of settings that each loss was given; empty for a single loss."""
    tried = {setting.loss: setting.n_tried for setting in rows}
    if len(tried) < 2:
        return ""
    counts = ", ".join(f"{n} of {loss}" for loss, n in tried.items())
    text = f"Settings that were tried: {counts}."
    if len({*tried.values()}) > 1:
        text += " A loss with more settings is more often better by luck: try the same number for every loss."
    return text


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _rows(candidates: Sequence[RecordedSetting]) -> list[RecordedSetting]:
    """Return the settings of one loss that are compared. See RULE."""
    for shown in (candidates, [setting for setting in candidates if len(setting.runs) >= _enough(candidates)]):
        by_value: dict[object, list[RecordedSetting]] = {}
        for setting in shown:
            by_value.setdefault(tuple(sorted(_own(setting).items())), []).append(setting)
        if len(by_value) <= MAX_ROWS:
            return [_best(group) for group in by_value.values()]
    return [_best(candidates)]


def _best(candidates: Sequence[RecordedSetting]) -> RecordedSetting:
    """Return the setting with the lowest mean nll on the validation split among those with enough seeds."""
    n_seeds = _enough(candidates)
    repeated = [setting for setting in candidates if len(setting.runs) >= n_seeds]
    return min(repeated, key=lambda setting: ("diverged" in setting.left_out.values(), setting.mean("val/nll")))


def _enough(candidates: Sequence[RecordedSetting]) -> int:
    return min(ENOUGH_SEEDS, max(len(setting.runs) for setting in candidates))


def _own(setting: RecordedSetting) -> dict[str, str]:
    """Return the parameters of the loss function by name."""
    params = setting.params.items()
    return {key.removeprefix("loss."): normal(value) for key, value in params if key.startswith("loss.")}

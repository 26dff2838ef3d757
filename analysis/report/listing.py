"""All comparisons that a store of MLflow allows, and the choice of the one that the page shows in detail."""

from collections import Counter
from collections.abc import Sequence

from analysis.page import Block, Cell, Row, Section, Table, Text
from analysis.recorded_run import RecordedRun, normal
from analysis.report import components, matched
from analysis.report.common_seeds import ENOUGH_SEEDS
from analysis.report.contenders import Comparison, load
from analysis.report.grid_trials import describe
from analysis.report.matched import BEST, Matched
from analysis.report.optuna_storage import NoStudy
from analysis.report.search import STORAGE
from analysis.report.verdict import Verdict
from analysis.runs import RecordedSetting
from nanosq.installation import program
from nanosq.suggestion import closest
from nanosq.tracking.parameters import belongs

MAX_LISTED = 20
LIKE_WITH_LIKE = (
    "Contenders differ only in one component (loss, optimizer, schedule or model) and its own parameters; those of "
    "hydra/sweeper=compare also in the settings that were tuned for each of them. They were "
    "trained on the same text by the same version of the program. Of more than "
    f"{matched.MAX_CONTENDERS} contenders, only the best of each component on the validation split is compared."
)
RULE = (
    "The page shows the first comparison: the newest one of hydra/sweeper=compare that has a result; then that with "
    "the most seeds that contenders have in common, where three count as much as more; then losses before optimizers, "
    "schedules and models; then the most training tokens; then the lowest validation nll. What a newer version of "
    "the program repeats with the same settings comes last. Without any of these, the page shows the newest one of "
    f"hydra/sweeper=compare, even if it has no result yet. Show another: {program('analysis.report')} --show NAME"
)
RULE_OF_BEST = (
    "The best setting of a loss has the lowest mean validation nll among its settings with the most seeds, where three "
    "are as good as more."
)


def sweeps(storage: str | None, all_runs: Sequence[RecordedRun]) -> list[Comparison]:
    """Return the comparisons of hydra/sweeper=compare, the newest first; none if the storage has none."""
    try:
        return load(storage or STORAGE, all_runs)
    except NoStudy:  # the section on searches says why
        return []


def comparisons(all_runs: Sequence[RecordedRun], tuned: Sequence[Comparison]) -> list[Matched]:
    """Return the comparisons in the order of RULE.

    The last one is that of the best setting of each loss, if more than the loss differs or if there is no other, even
    without a result.

    Args:
        all_runs: All runs, on any text.
        tuned: The result of `sweeps`.
    """
    result = [each for each in (sweep.matched() for sweep in tuned) if len(each.settings) > 1]
    confirmed = [{run.id for run in each.runs} for each in result]
    untuned = matched.find(all_runs)
    found = [each for each in untuned if not any({run.id for run in each.runs} <= ids for ids in confirmed)]
    result += sorted(found, key=lambda each: (_is_repeated(each, found), *_rank(each)))
    finished = Counter(run.text_hash for run in all_runs if run.state == "finished")
    text = result[0].runs[0].text_hash if result else max(finished, key=lambda text: finished[text], default="")
    best = matched.best_of_each_loss(all_runs, text)
    is_mixed = best is not None and len(best.settings) > 1 and bool(_on_best(best).besides)
    is_known = best is not None and any({run.id for run in best.runs} <= ids for ids in confirmed)
    return [*result, best] if best and ((is_mixed and not is_known) or not (result or tuned)) else result


def pick(listed: Sequence[Matched], name: str | None, tuned: Sequence[Comparison] = ()) -> Matched | None:
    """Return the comparison of a name, by default that of RULE; None if there is none. Raise ValueError for a typo."""
    if name is None:
        first = next(iter(listed), None)
        return tuned[0].matched() if tuned and (first is None or first.name == BEST) else first
    for each in listed:
        if each.name == name:
            return each
    names = [each.name for each in listed]
    raise ValueError(f"no comparison {name!r}: --show takes one of {', '.join(names) or 'none'}{closest(name, names)}")


def section(listed: Sequence[Matched], shown: Matched, waiting: Sequence[str] = ()) -> Section:
    """Return the section with the verdict of every comparison, and how they are chosen and ordered.

    Args:
        listed: All comparisons.
        shown: The one that the page shows.
        waiting: Sentences on comparisons without a result.
    """
    like = [each for each in listed if each.name != BEST]
    rows: list[Row] = [
        [
            Cell(each.name, each.name, strong=each is shown),
            f"{each.what}: {', '.join(each.settings)}{_elsewhere(each, shown)}",
            *(len(each.runs), each.n_seeds, each.headline()),
        ]
        for each in like[:MAX_LISTED]
    ]
    header = ["name", "contenders", "runs", "common seeds", "result"]
    blocks: list[Block] = []
    if rows:
        more = f" In brackets: what is not as in {shown.name}, which is shown." if len(like) > 1 else ""
        more += f" The table shows the first {MAX_LISTED} of {len(like)}." if len(like) > MAX_LISTED else ""
        blocks.append(Table("comparisons", header, rows, f"Comparisons of like with like.{more}"))
    for best in listed[len(like) :]:
        if best is not shown:
            sentence = _on_best(best).sentence
            blocks.append(Text(f"Not like with like, the best setting of each loss (--show {BEST}): {sentence}"))
        blocks.append(Text(RULE_OF_BEST, "note"))
    blocks += [Text(text) for text in waiting]
    return Section("Comparisons", [*blocks, Text(LIKE_WITH_LIKE, "note"), Text(RULE, "note")])


def _elsewhere(each: Matched, shown: Matched) -> str:
    """Return what is not the same as in the comparison that is shown, in brackets."""
    params, others = _all_params(next(iter(each.settings.values()))), [*map(_all_params, shown.settings.values())]
    keys = [
        key
        for key in sorted(params)
        if not belongs(key, each.compared) and {normal(other.get(key, "")) for other in others} != {normal(params[key])}
    ]
    return f" ({describe(params, keys)})" if keys and each is not shown else ""


def _all_params(setting: RecordedSetting) -> dict[str, str]:
    """Return the parameters of a setting, its text and its version of the program."""
    return {**setting.params, "text": setting.runs[0].text_hash, "program": setting.runs[0].program}


def _on_best(best: Matched) -> Verdict:
    """Return the verdict on the reference and the best other setting on the validation split."""
    base, *others = best.order
    other = min(others, key=lambda label: best.settings[label].mean("val/nll"))
    return best.verdict(base, other, matched.DRAWS)


def _is_repeated(each: Matched, found: Sequence[Matched]) -> bool:
    """Return whether a newer version of the program was run with the same settings, and maybe with others."""
    keys, last = {run.key for run in each.runs}, max(run.started for run in each.runs)
    newer = (other for other in found if max(run.started for run in other.runs) > last)
    return any(keys <= {run.key for run in other.runs} for other in newer)


def _rank(each: Matched) -> tuple[float, ...]:
    tokens = max(run.metrics.get("train/tokens", 0.0) for run in each.runs)
    nll = min(setting.mean("val/nll") for setting in each.settings.values())
    return -min(ENOUGH_SEEDS, each.n_seeds), components.COMPONENTS.index(each.what), -tokens, nll

"""Training and validation curves: Figures 1 and 2 of the student report, and the nll of all losses.

python -m analysis.report.curves                      the best setting of each loss, into report/
python -m analysis.report.curves 3f2a 'my run'        these runs: ids, the beginnings of ids, or names
python -m analysis.report.curves --against seconds    over time in place of steps
"""

import itertools
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import cli, figures, page, runs
from analysis.axes import Line, line, mean_and_range, plain_log, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AGAINST = {"steps": "Step", "tokens": "Training tokens", "seconds": "Training time without evaluation (s)"}
N_MARKERS = 8  # on a line
SPLITS = {"Validation": "val", "Training": "train"}


def section(chosen: Mapping[str, runs.RecordedSetting], *, against: str = "steps") -> page.Section:
    """Return a figure of the objective for each loss, and one of the nll of all losses.

    chosen: settings by the name they are shown under. ValueError for an `against` that is not in AGAINST.
    """
    if against not in AGAINST:
        raise ValueError(f"curves are drawn against {', '.join(AGAINST)}, not {against!r}")
    title = "Training and validation curves"
    if not chosen:
        return page.Section(
            title, [page.Text(f"No run has finished with a validation score. {runs.TRAIN} trains some.")]
        )
    about = (
        "Training and validation share a panel; in Figures 1 and 2 of the report the right panels were swapped. An "
        "objective is in its loss's own unit: only the nll (negative log-likelihood, nats per token) compares losses. "
        "A thick line is the mean of the seeds as far as all of them go, the band goes from the least of them to the "
        "greatest. A training loss is that of one step's batch, with dropout; a validation loss of the whole split."
    )
    objectives = [_objective(label, setting, against) for label, setting in chosen.items()]
    parts = [_all_losses(chosen, against), *objectives]
    drawn = [part for part in parts if part is not None]
    notes = list(_notes(chosen, against))
    return page.Section(title, [*([page.Text(about)] if drawn else []), *drawn, *(page.Text(n, "note") for n in notes)])


def picked(found: Sequence[runs.RecordedRun], wanted: Iterable[str]) -> dict[str, runs.RecordedSetting]:
    """Return runs in any state, grouped by setting. Raise ValueError as `runs.pick` does."""
    groups: dict[Any, list[runs.RecordedRun]] = defaultdict(list)
    for run in {run.id: run for run in (runs.pick(found, each) for each in wanted)}.values():
        groups[run.loss, run.text_hash, *sorted(run.setting.items())].append(run)
    by_loss: dict[str, list[list[runs.RecordedRun]]] = defaultdict(list)
    for group in groups.values():
        by_loss[group[0].loss].append(sorted(group, key=lambda run: run.seed))
    chosen = {}
    for loss, each in by_loss.items():
        keys = runs.differing([group[0].setting for group in each])
        for group in each:
            differences = [f"{key.split('.')[-1]}={group[0].setting.get(key, 'none')}" for key in keys]
            label = " ".join([loss, *differences])
            while label in chosen:  # of another text
                label += " (other text)"
            chosen[label] = runs.RecordedSetting(loss, group[0].setting, group, Counter())
    return chosen


def _lines(setting: runs.RecordedSetting, key: str, against: str) -> list[Line]:
    return [each for run in setting.runs if len((each := line(run, key, against))[0])]


def _objective(label: str, setting: runs.RecordedSetting, against: str) -> figures.Figure | None:
    lines = {split: _lines(setting, f"{key}/loss", against) for split, key in SPLITS.items()}
    if not any(lines.values()):
        return None
    unit = "nats per token" if setting.loss == runs.BASELINE else "in its own unit"
    with figures.style():
        drawing, (axes,) = figures.panels(size=(4.8, 3.2))
        for number, (split, each) in enumerate(lines.items()):
            _draw(axes, each, split, number)
        _finish(axes, against, f"Objective, {unit}", itertools.chain(*lines.values()))
        axes.set_title(label, wrap=True)
        axes.legend()
        caption = f"The objective of {label} over {against}, {unit}: {_seeds(setting)}."
        return figures.finish(drawing, f"objective_{_slug(label)}", caption)


def _all_losses(chosen: Mapping[str, runs.RecordedSetting], against: str) -> figures.Figure | None:
    lines = {
        split: {label: _lines(setting, f"{key}/nll", against) for label, setting in chosen.items()}
        for split, key in SPLITS.items()
    }
    every = [each for by_label in lines.values() for some in by_label.values() for each in some]
    if not every:
        return None
    with figures.style():
        drawing, panels = figures.panels(2, size=(4.2, 3.3))
        for axes, (split, by_label) in zip(panels, lines.items(), strict=True):
            for number, (label, each) in enumerate(by_label.items()):
                _draw(axes, each, label, number)
            _finish(axes, against, f"{split} nll (nats per token)", every)
            axes.set_title(split)
        shown: dict[str, Any] = {
            text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if shown:
            columns = min(3 if max(map(len, shown)) < 30 else 1, len(shown))
            drawing.legend(shown.values(), shown, loc="outside lower center", ncols=columns)
        seeds = "; ".join(f"{label}: {_seeds(setting)}" for label, setting in chosen.items())
        return figures.finish(drawing, "curves_nll", f"All losses by their nll over {against}. {seeds}.")


def _draw(axes: "Axes", lines: Sequence[Line], label: str, number: int) -> None:
    look = figures.series(number)
    if not lines:
        return
    if len(lines) > 1:
        for x, y in lines:
            kept = thinned(y)
            axes.plot(x[kept], y[kept], color=look["color"], linewidth=0.6, alpha=0.5)
        x, mean, least, greatest = mean_and_range(lines)
        if not len(x):
            return
        kept = thinned(mean)
        axes.fill_between(x[kept], least[kept], greatest[kept], color=look["color"], alpha=0.18, linewidth=0)
    else:
        x, mean = lines[0]
        kept = thinned(mean)
    every = max(1, len(kept) // N_MARKERS)
    axes.plot(x[kept], mean[kept], label=label, markevery=(number % 2 * (every // 2), every), **look)


def _finish(axes: "Axes", against: str, label: str, lines: Iterable[Line]) -> None:
    from matplotlib.ticker import EngFormatter

    plain_log(axes, "y", np.concatenate([y for _, y in lines]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.set_xlabel(AGAINST[against])
    axes.set_ylabel(label)


def _seeds(setting: runs.RecordedSetting) -> str:
    return "one seed" if len(setting.runs) == 1 else f"{len(setting.runs)} seeds"


def _slug(label: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", label)[:100]


def _notes(chosen: Mapping[str, runs.RecordedSetting], against: str) -> Iterable[str]:
    for label, setting in chosen.items():
        for run in setting.runs:
            if not any(run.curve(f"{split}/loss").steps for split in SPLITS.values()):
                yield f"{label}: run {run.id[:8]} ({run.state}) has no curve."
            elif not any(len(line(run, f"{split}/loss", against)[0]) for split in SPLITS.values()):
                yield f"{label}: run {run.id[:8]} has nothing to count {against} by: --against steps draws it."
            elif run.state != "finished":
                yield f"{label}: run {run.id[:8]} is drawn as far as it went ({run.state})."
        if setting.others:
            others = ", ".join(f"{count} {state}" for state, count in setting.others.items())
            yield f"{label}: further seeds have no result and are left out ({others})."
    if len({run.text_hash for setting in chosen.values() for run in setting.runs}) > 1:
        yield "These runs learnt from different text: their nll cannot be compared."


def main() -> int:
    """Run the command."""
    parser = cli.parser(__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="id, its beginning, or name; default: the best setting")
    parser.add_argument("--against", choices=list(AGAINST), default="steps")
    arguments = parser.parse_args()

    def work() -> None:
        found = runs.load(arguments.tracking_uri, arguments.experiment)
        chosen = (
            picked(found, arguments.runs) if arguments.runs else runs.best(runs.runs_on_common_text(found, None)[0])
        )
        made = section(chosen, against=arguments.against)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for block in made.blocks:
            if isinstance(block, figures.Figure):
                block.save(arguments.out)
                print(arguments.out / f"{block.name}.png", arguments.out / f"{block.name}.svg", sep="\n")
            elif isinstance(block, page.Text) and (block.kind == "note" or len(made.blocks) == 1):
                print(block.text)

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())

"""Training and validation curves: Figures 1 and 2 of the student report, and the nll of all losses.

python -m analysis.report.curves                      the first comparison of the report, into report/
python -m analysis.report.curves 3f2a 'my run'        these runs, by id, beginning of an id, or name
python -m analysis.report.curves --against seconds    over time instead of steps
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis import cli, figures, labels, runs
from analysis.axes import fit_scale
from analysis.lines import Line, line, mean_and_range, thinned
from analysis.page import Section, Text
from analysis.recorded_run import RecordedRun
from analysis.report import common_seeds, listing
from analysis.report.stories import file_name
from analysis.runs import RecordedSetting
from nanosq import command, option

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Training and validation curves"
AGAINST = {"steps": "Step", "tokens": "Training tokens", "seconds": "Training time without evaluation (s)"}
N_MARKERS = 8  # on a line
SINGLE = 8  # size of the marker of a line that has one point only
SPLITS = {"Validation": "val", "Training": "train"}
Panel = tuple[str, str, dict[str, list[Line]]]  # title, label of the y axis, lines by the label of their series
ABOUT = (
    "Line: mean over the seeds. Band: lowest to highest seed. A point of training is the batch of one step, with "
    "dropout; a point of validation is the whole split. Every objective has its own unit, so compare losses by the nll "
    "(negative log-likelihood) only. Training and validation share a panel; the student report swapped its two panels."
)


def section(best: Mapping[str, RecordedSetting], *, against: str = "steps") -> Section:
    """Return a figure of the nll of all losses, and a figure of the objective of each loss.

    Args:
        best: Settings by their label.
        against: The x axis, one of AGAINST.
    """
    if not best:
        return Section(TITLE, [Text(runs.NO_RESULT)])
    objectives = [_objective(label, setting, against) for label, setting in best.items()]
    drawn = [figure for figure in (_nll(best, against), *objectives) if figure is not None]
    notes = [Text(note, "note") for note in _notes(best, against)]
    return Section(TITLE, [*([Text(ABOUT)] if drawn else []), *drawn, *notes])


def settings_of(all_runs: Sequence[RecordedRun], wanted: Iterable[str]) -> dict[str, RecordedSetting]:
    """Return the settings of runs in any state by a label that tells them apart. Only these runs are included.

    Raises:
        ValueError: There is no such run.
    """
    settings = [
        RecordedSetting(group[0].loss, group[0].setting, sorted(group, key=lambda run: run.seed), {})
        for group in runs.by_setting(dict.fromkeys(runs.pick(all_runs, name) for name in wanted))
    ]
    by_label: dict[str, RecordedSetting] = {}
    for setting in settings:
        keys = runs.differing([other.params for other in settings if other.loss == setting.loss])
        values = [f"{key.split('.')[-1]}={setting.params.get(key, 'none')}" for key in keys]
        label = " ".join([setting.loss, *values])
        while label in by_label:
            label += " (other text)"
        by_label[label] = setting
    return by_label


def _lines(setting: RecordedSetting, key: str, against: str) -> list[Line]:
    lines = (line(run, key, against) for run in setting.runs)
    return [(x, y) for x, y in lines if len(x)]


def _objective(label: str, setting: RecordedSetting, against: str) -> figures.Figure | None:
    unit = "nats per token" if setting.loss == runs.BASELINE else "in its own unit"
    lines = {split: _lines(setting, f"{key}/loss", against) for split, key in SPLITS.items()}
    panels = [(label, f"Objective, {unit}", lines)]
    caption = f"The objective of {label} over {against}, {unit}: {_seeds(setting)}."
    return _figure(f"objective_{file_name(label)}", caption, panels, against)


def _nll(best: Mapping[str, RecordedSetting], against: str) -> figures.Figure | None:
    panels = []
    for split, key in SPLITS.items():
        lines = {label: _lines(setting, f"{key}/nll", against) for label, setting in best.items()}
        panels.append((split, f"{split} nll (nats per token)", lines))
    seeds = "; ".join(f"{label}: {_seeds(setting)}" for label, setting in best.items())
    return _figure("curves_nll", f"The nll of all losses over {against}. {seeds}.", panels, against)


@figures.style()
def _figure(name: str, caption: str, panels: Sequence[Panel], against: str) -> figures.Figure | None:
    """Draw panels that share the range of values; return None if no run has a curve."""
    shown = [points for *_, series in panels for lines in series.values() for points in lines]
    if not shown:
        return None
    drawing, all_axes = figures.panels(len(panels))
    for axes, (title, y_label, series) in zip(all_axes, panels, strict=True):
        axes.sharey(all_axes[0])
        for number, (label, lines) in enumerate(series.items()):
            _draw(axes, lines, label, number)
        axes.set(xlabel=AGAINST[against], ylabel=y_label, xlim=(0, 1.03 * max(x.max() for x, _ in shown)))
        axes.set_title(title, wrap=True)
    for axes in all_axes:
        fit_scale(axes, "x", [0, *np.concatenate([x for x, _ in shown])], is_log=False)
        fit_scale(axes, "y", np.concatenate([y for _, y in shown]))
        labels.name_ends(axes)
    if single := [
        f"{title} of {label}" if label not in SPLITS else label
        for title, _, series in panels
        for label, lines in series.items()
        if lines and len(lines[0][0]) == 1
    ]:
        caption += f" One point, not a curve: {', '.join(single)} (more with train.eval_every, train.log_every)."
    return figures.finish(drawing, name, caption)


def _draw(axes: "Axes", lines: Sequence[Line], label: str, number: int) -> None:
    look = figures.series(number)
    if not lines:
        return
    if len(lines) > 1:
        for x, y in lines:
            kept = thinned(y)
            axes.plot(x[kept], y[kept], color=look["color"], linewidth=0.6, alpha=0.5)
        x, mean, low, high = mean_and_range(lines)
        if not len(x):
            return
        kept = thinned(mean)
        axes.fill_between(x[kept], low[kept], high[kept], color=look["color"], alpha=0.18, linewidth=0)
    else:
        x, mean = lines[0]
        kept = thinned(mean)
    every = max(1, len(kept) // N_MARKERS)
    look |= {"markevery": (number % 2 * (every // 2), every), "markersize": SINGLE if len(kept) == 1 else None}
    axes.plot(x[kept], mean[kept], label=label, **look)


def _seeds(setting: RecordedSetting) -> str:
    return "one seed" if len(setting.runs) == 1 else f"{len(setting.runs)} seeds"


def _notes(best: Mapping[str, RecordedSetting], against: str) -> Iterable[str]:
    for label, setting in best.items():
        for run in setting.runs:
            name = f"{label}: run {run.id[:8]}"
            if not any(run.curve(f"{split}/loss").steps for split in SPLITS.values()):
                yield f"{name} ({run.state}) has no curve."
            elif not any(len(line(run, f"{split}/loss", against)[0]) for split in SPLITS.values()):
                yield f"{name} has no {against}: use --against steps."
            elif run.state != "finished":
                yield f"{name} ({run.state}) is shown up to its last step."
        yield from common_seeds.left_out(label, setting)
    if len({run.text_hash for setting in best.values() for run in setting.runs}) > 1:
        yield "These runs were trained on different text: do not compare their nll."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = cli.parser(__doc__, "[RUN ...]", module="analysis.report.curves")
    parser.add_argument(
        "runs", nargs="*", type=option.name, metavar="RUN", help="default: those of the first comparison of the report"
    )
    parser.add_argument("--against", choices=list(AGAINST), default="steps", help="x axis; default: %(default)s")

    def work() -> None:
        options = parser.parse_args(arguments)
        all_runs = runs.load(options.tracking_uri, options.experiment)
        if options.runs:
            settings = settings_of(all_runs, options.runs)
        else:
            first = listing.pick(listing.comparisons(all_runs, listing.sweeps(None, all_runs)), None)
            settings = dict(first.settings) if first else {}
        cli.show(section(settings, against=options.against), options.out)

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())

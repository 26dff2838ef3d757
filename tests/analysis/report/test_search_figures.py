"""The figures of the search section."""

import re
from itertools import combinations

import pytest
from matplotlib.figure import Figure as Drawing
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from analysis import figures
from analysis.page import DASH, Section, Table
from analysis.report import parallel_coordinates, search, search_figures
from tests.analysis.blocks import texts
from tests.analysis.report.studies import add, line, trial


def names(section: Section) -> list[str]:
    """Return the names of the files of a section."""
    return [block.name for block in section.blocks if isinstance(block, Table | figures.Figure)]


def test_a_metric_that_is_maximized(url: str, drawings: dict[str, Drawing]) -> None:
    study = search.load(url, "upwards")
    assert [trial.number for trial in study.ranked()] == [1, 2, 0]
    assert [trial.number for trial in study.front()] == [1]
    assert "trial 1, with metric 0.5" in texts(search.section(search.find(url, "upwards")))
    assert line(drawings["search-history"], "best so far")[1] == [0.2, 0.5, 0.5, 0.5]
    assert "higher is better" in drawings["search-history"].axes[0].get_ylabel()


def test_history_shows_pruned_trials(url: str, drawings: dict[str, Drawing]) -> None:
    search_figures.history(search.load(url, "single"))
    drawing = drawings["search-history"]
    assert line(drawing, "complete trial") == ([0, 1, 3, 6], [8.0, 16.0, 4.125, 5.0])
    assert line(drawing, "best so far") == ([0, 1, 3, 6, 7], [8.0, 8.0, 4.125, 4.125, 4.125])
    assert line(drawing, "pruned, last value") == ([2, 7], [400.0, 600.0])
    assert drawing.axes[0].get_yscale() == "log"


def test_intermediate_values_of_pruned_trials_end_early(url: str, drawings: dict[str, Drawing]) -> None:
    search_figures.intermediate(search.load(url, "single"))
    drawing = drawings["search-intermediate"]
    assert line(drawing, "best, trial 3") == ([10, 100], [80.0, 4.125])
    curves = [(list(curve.get_xdata()), list(curve.get_ydata())) for curve in drawing.axes[0].lines]
    assert ([10, 30], [700.0, 400.0]) in curves
    assert ([30], [400.0]) in curves  # its cross
    assert len([xs for xs, _ in curves if xs == [10, 100]]) == 4


def test_parallel_coordinates(url: str, drawings: dict[str, Drawing]) -> None:
    study = search.load(url, "single")
    parallel_coordinates.figure(study)
    lines = places(drawings["search-parallel"])
    assert len(lines) == 4
    # learning rate 1e-3 of 1e-4..1e-2, two layers of 1..4, the first of two optimizers, the least perplexity
    shift = [0.3 * (rank + 0.5) / 4 - 0.15 for rank in range(4)]  # of lines that have the same optimizer
    assert lines[-1] == pytest.approx([0.5, 1 / 3, 0.25 + shift[0], 0.0])
    assert lines[1] == pytest.approx([1.0, 1 / 3, 0.25 + shift[2], (8 - 4.125) / (16 - 4.125)])  # linear below 5 times
    assert lines[0] == pytest.approx([0.0, 1 / 3, 0.25 + shift[3], 1.0])


@pytest.mark.parametrize("name", ["single", "two"])
def test_no_line_of_the_parallel_coordinates_crosses_a_text(url: str, drawings: dict[str, Drawing], name: str) -> None:
    """Lines are below the strips of the axes, which hold all texts of ticks."""
    parallel_coordinates.figure(search.load(url, name))
    (ax,) = drawings["search-parallel"].axes
    strips = [patch.get_window_extent() for patch in ax.patches]
    trials = [line for line in ax.lines if len(line.get_xdata()) > 2]
    assert max(line.get_zorder() for line in trials) < min(patch.get_zorder() for patch in ax.patches)
    for text in ax.texts:
        box = text.get_window_extent()
        (strip,) = [strip for strip in strips if strip.y0 <= box.y0 <= box.y1 <= strip.y1]
        assert strip.x0 <= box.x0 <= box.x1 <= strip.x1
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def places(drawing: Drawing) -> list[list[float]]:
    """Return the places of each trial on the axes, from above to below. Each line passes straight behind an axis."""
    curves = [list(curve.get_xdata()) for curve in drawing.axes[0].lines if len(curve.get_xdata()) > 2]
    assert all(curve[::2] == curve[1::2] for curve in curves)
    return [curve[::2] for curve in curves]


def test_a_setting_that_some_trials_lack(scratch: str, drawings: dict[str, Drawing]) -> None:
    axis = FloatDistribution(0, 1)
    trials = [
        create_trial(values=[1.0], params={"a": 0.5}, distributions={"a": axis}),
        create_trial(values=[2.0], params={"a": 1.0, "b": 0.25}, distributions={"a": axis, "b": axis}),
    ]
    add(scratch, "conditional", trials)
    (table,) = [
        block for block in search.section(search.find(scratch, "conditional")).blocks if isinstance(block, Table)
    ]
    assert [row[4].text for row in table.cells()] == [DASH, "0.25"]
    ax = drawings["search-parallel"].axes[0]
    assert [0.5, parallel_coordinates.NOT_SET, 0.0] in places(drawings["search-parallel"])
    assert "not set" in [text.get_text() for text in ax.texts]


def test_figures_with_one_metric_and_with_two(url: str) -> None:
    of_one = ["search-trials", "search-history", "search-intermediate", "search-parallel"]
    of_two = ["search-trials", "search-pareto", "search-parallel", "search-importance"]
    assert [names(search.section(search.find(url, name))) for name in ("single", "two")] == [of_one, of_two]


def test_colors_are_those_of_the_page(url: str) -> None:
    light = {color for color, _ in figures.THEME.values()}
    for name in ("single", "two"):
        for part in search.section(search.find(url, name)).blocks:
            if isinstance(part, figures.Figure):
                assert {*re.findall(r"#[0-9a-f]{6}\b", part.svg)} <= light, part.name


def test_pareto_axes(url: str, drawings: dict[str, Drawing]) -> None:
    study = search.load(url, "two")
    search_figures.pareto(study)
    xs, ys = line(drawings["search-pareto"], "Pareto front")
    assert sorted(zip(xs, ys, strict=True)) == sorted(tuple(trial.values) for trial in study.front())
    ax = drawings["search-pareto"].axes[0]
    assert ax.get_xlabel() == "Validation accuracy\n(higher is better)"
    assert ax.get_ylabel() == "Training time (s)\n(lower is better)"


def test_without_a_complete_trial_there_is_a_sentence(scratch: str) -> None:
    study = add(scratch, "begun", [trial(intermediate={5: 3.0}, state=TrialState.PRUNED), trial(state=TrialState.FAIL)])
    study.ask()
    section = search.section(search.find(scratch, "begun"))
    assert "1 pruned, 1 failed, 1 running" in texts(section)
    assert "No trial is complete" in texts(section)
    assert names(section) == ["search-trials", "search-history", "search-intermediate"]


def test_the_first_trial_is_running(scratch: str, recwarn: pytest.WarningsRecorder) -> None:
    add(scratch, "running", []).ask().report(3.0, 5)
    assert names(search.section(search.find(scratch, "running"))) == ["search-trials", "search-intermediate"]
    assert not [warning for warning in recwarn if "label" in str(warning.message)]

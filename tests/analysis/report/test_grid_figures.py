import itertools
from typing import Any

import numpy as np
import pytest

from analysis.page import DASH
from analysis.recorded_run import RecordedRun
from analysis.report import grid
from tests.analysis.blocks import figure_names, texts
from tests.analysis.recorded import trial
from tests.analysis.report.test_grid import table, warming_up

REPORT = {"train__warmup": 2000, "train__max_steps": 50, "train__log_every": 10}


def listing() -> list[RecordedRun]:
    """Return the 27 trials of Listing A.3, with a perplexity that shows the number of the trial."""
    axes = itertools.product((0.000006, 0.0006, 0.06), (0.0, 0.1, 0.2), (8, 12, 16))
    return [
        trial(
            number,
            100.0 + number,
            points=warming_up(lr),
            **REPORT,
            optimizer__lr=lr,
            model__dropout=dropout,
            model__n_layer=n_layer,
        )
        for number, (lr, dropout, n_layer) in enumerate(axes)
    ]


def cells(axes) -> dict[tuple[str, str], str]:
    """Return the text of each cell by the labels of its column and row."""
    columns, rows = ([tick.get_text() for tick in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))
    return {(columns[int(t.get_position()[0])], rows[int(t.get_position()[1])]): t.get_text() for t in axes.texts}


def test_heat_maps_of_the_student_report(drawings: dict[str, Any]) -> None:
    section = grid.section(listing())
    assert figure_names(section) == ["grid_values", "grid_learning_rate"]
    (caption,) = [block.caption for block in section.blocks if getattr(block, "name", "") == "grid_values"]
    assert "perplexity of the trials after 50 training steps" in caption
    panels = drawings["grid_values"].axes
    assert [axes.get_title(loc="left") for axes in panels] == ["Layers: 8", "Layers: 12", "Layers: 16"]
    assert (panels[0].get_xlabel(), panels[0].get_ylabel()) == ("Learning rate", "Dropout")
    expected = itertools.product(("6e-06", "0.0006", "0.06"), ("0", "0.1", "0.2"), range(3))
    for number, (lr, dropout, panel) in enumerate(expected):
        shown = cells(panels[panel])[lr, dropout]
        assert shown == (f"{100 + number}" if number else "100\nbest")
    assert [row["Trial"] for row in table(section)] == [str(number) for number in range(27)]
    assert [*table(section)[0].items()][:-1] == [
        *(("Trial", "0"), ("Learning rate", "6e-06"), ("Dropout", "0"), ("Layers", "8"), ("State", "finished")),
        *(("Val perplexity", "100"), ("Val nll (nats/token)", "4.6052"), ("Val bits/byte", "1.5351")),
    ]


def test_a_grid_of_short_runs_says_so() -> None:
    """Its perplexities are much higher than those of full runs on the same page."""
    assert "steps only" not in texts(grid.section(listing()))
    full = trial(0, 3.6, sweep="full", train__max_steps=1600)
    text = "It was trained for 50 steps only: do not compare it with other runs, of up to 1,600 steps."
    assert text in texts(grid.section([*listing(), full]))


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_a_heat_map_has_room_for_long_names_of_losses() -> None:
    recorded = [trial(i, 100.0 + i) for i in range(2)]
    for module, one in zip(("mine", "yours"), recorded, strict=True):
        one.params["loss"] = f"{module}.long_package_name.cross_entropy"
    assert "grid_values" in figure_names(grid.section(recorded))


def test_learning_rates_of_the_student_report(drawings: dict[str, Any]) -> None:
    """It is at most 2.45 % of nominal, as computed from the code of the report."""
    recorded = listing()
    text = texts(grid.section(recorded))
    assert "learning rate of a trial was 2.45 % of nominal" in text
    assert "27 of 27 trials ended within their warmup, for example after 50 of 2000 steps" in text
    (axes,) = drawings["grid_learning_rate"].axes
    curves = {line.get_label(): line for line in axes.lines if line.get_label().startswith("learning rate")}
    assert list(curves) == ["learning rate 6e-06", "learning rate 0.0006", "learning rate 0.06"]
    assert curves["learning rate 0.06"].get_xdata().tolist() == [10, 20, 30, 40, 50]
    assert curves["learning rate 0.06"].get_ydata()[-1] == pytest.approx(0.06 * 49 / 2000)
    assert axes.get_yscale() == "log"
    nominal = [line.get_ydata()[0] for line in axes.lines if line not in curves.values()]
    assert nominal == [6e-6, 6e-4, 6e-2]


def test_a_run_that_ended_early_has_no_curve_of_its_own(drawings: dict[str, Any]) -> None:
    recorded = [
        trial(0, 10.0, points=warming_up(0.1), optimizer__lr=0.1, model__dropout=0),
        trial(1, tags={"diverged": "true"}, points=warming_up(0.1, 20), optimizer__lr=0.1, model__dropout=0.1),
        trial(2, 12.0, points=warming_up(0.3), optimizer__lr=0.3, model__dropout=0),
        trial(3, 13.0, optimizer__lr=0.3, model__dropout=0.1),
    ]
    grid.section(recorded)
    (axes,) = drawings["grid_learning_rate"].axes
    shown = [line.get_label() for line in axes.lines if line.get_label().startswith("learning")]
    assert shown == ["learning rate 0.1", "learning rate 0.3"]


def test_cells_without_a_value_show_the_state(drawings: dict[str, Any]) -> None:
    states = {
        (0.1, 0): {"tags": {"diverged": "true"}, "value": 5.0},  # the last value is no result
        (0.1, 0.1): {"tags": {"pruned": "true"}, "value": 4.0},
        (0.1, 0.2): {"status": "FAILED"},
        (0.2, 0): {"status": "RUNNING"},
        (0.2, 0.1): {"status": "KILLED"},
        (0.2, 0.2): {},
        (0.3, 0): {"value": 10.0},
        (0.3, 0.1): {"value": 5e4},
    }
    recorded = [
        trial(i, optimizer__lr=lr, model__dropout=dropout, **others)
        for i, ((lr, dropout), others) in enumerate(states.items())
    ]
    section = grid.section(recorded)
    (axes,) = drawings["grid_values"].axes
    assert cells(axes) == {
        **{("0.1", "0"): "diverged", ("0.1", "0.1"): "pruned", ("0.1", "0.2"): "failed"},
        **{("0.2", "0"): "running", ("0.2", "0.1"): "killed", ("0.2", "0.2"): "no value"},
        **{("0.3", "0"): "10\nbest", ("0.3", "0.1"): "50k", ("0.3", "0.2"): "missing"},
    }
    hatched = [patch.get_hatch() for patch in axes.patches if patch.get_hatch()]
    assert len(hatched) == 6
    assert hatched.count("xxx") == 1
    assert [row["State"] for row in table(section)][:2] == ["finished", "finished"]
    assert [row["Val perplexity"] for row in table(section)][2:] == [DASH] * 6
    assert "8 trials (3 finished, 1 pruned, 1 diverged, 1 failed, 1 killed, 1 running)" in texts(section)


def test_text_of_a_cell_contrasts_with_it(drawings: dict[str, Any]) -> None:
    from matplotlib.colors import to_rgb

    def luminance(color) -> float:  # WCAG 2
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    recorded = [trial(i, 10.0 + i, optimizer__lr=i // 6 + 1, model__dropout=i % 6) for i in range(36)]
    grid.section(recorded)
    axes = drawings["grid_values"].axes[0]
    fills = {}
    for patch in axes.patches:
        if patch.get_fill() and patch.get_facecolor()[3] > 0:
            x, y = patch.get_xy()
            fills[round(x + 0.48), round(y + 0.48)] = patch.get_facecolor()
    assert len(fills) == len(axes.texts) == 36
    for text in axes.texts:
        x, y = text.get_position()
        light, dark = sorted((luminance(text.get_color()), luminance(fills[x, y])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5


def test_the_longest_run_of_a_schedule_is_drawn_if_the_optimizer_has_no_learning_rate(drawings: dict[str, Any]) -> None:
    points = [(step, "train/lr", 0.1) for step in range(1, 9)]
    grid.section(
        [trial(i, 9.0, points=points[:n], model__dropout=i, model__n_layer=i % 2) for i, n in enumerate((2, 8, 4))]
    )
    (curve,) = drawings["grid_learning_rate"].axes[0].lines
    assert list(curve.get_xdata()) == list(range(1, 9))


def test_of_four_settings_one_is_fixed(drawings: dict[str, Any]) -> None:
    combinations = itertools.product((1, 2), (0.0, 0.1), (1, 2), (64, 128))
    recorded = [
        trial(i, 50.0 - i, optimizer__lr=lr, model__dropout=p, model__n_layer=n, model__n_embd=d)
        for i, (lr, p, n, d) in enumerate(combinations)
    ]
    section = grid.section(recorded)
    assert "The figure shows only trials with model.n_embd 128, the values of the best trial" in texts(section)
    shown = {text for axes in drawings["grid_values"].axes[:2] for text in cells(axes).values()}
    assert shown == {*(str(50 - i) for i in range(1, 15, 2)), "35\nbest"}
    assert len(table(section)) == 16


def test_runs_of_another_sweep_complete_the_grid(drawings: dict[str, Any]) -> None:
    """The grid sweeper does not repeat a run of the same program."""

    def elsewhere(value: float, **others: object) -> RecordedRun:
        return trial(0, value, sweep="grid-b", optimizer__lr=2, model__dropout=1, **others)

    recorded = [
        elsewhere(5.0),
        elsewhere(4.0, tags={"code": "another"}),
        elsewhere(3.0, status="FAILED"),
        elsewhere(2.0, seed=9),
        elsewhere(1.0, tags={"text": "another"}),
        *(trial(i, 10.0 + i, optimizer__lr=lr, model__dropout=p) for i, (lr, p) in enumerate([(1, 0), (1, 1), (2, 0)])),
    ]
    section = grid.section(recorded)
    assert cells(drawings["grid_values"].axes[0])["2", "1"] == "5\nbest"
    assert (table(section)[0]["Trial"], table(section)[0]["State"]) == (DASH, "finished (another sweep)")
    assert len(table(section)) == 4

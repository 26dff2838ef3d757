import itertools
import math
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis import grid, grid_figures, grid_trials, runs
from analysis.figures import Figure
from analysis.page import DASH, Section, Table, Text
from tests.analysis import fake
from tests.analysis.store import add_run

REPORT = {"train__warmup": 2000, "train__max_steps": 50, "train__log_every": 10}


def warming_up(nominal: float, steps: int = 50) -> list[tuple[int, str, float]]:
    """nanoGPT's schedule of 2023: iteration i, from 0, has lr * i / 2000; logged after every tenth and the last."""
    return [(step, "train/lr", nominal * (step - 1) / 2000) for step in range(10, steps + 1, 10)]


def trial(
    number: int, value: float = math.nan, *, sweep: str = "grid-a", tags: dict | None = None, **others
) -> runs.Run:
    scores = {"val/perplexity": value, "val/nll": math.log(value), "val/bits_per_byte": math.log(value) / 3}
    metrics = {} if math.isnan(value) else scores
    return fake.run(tags={"sweep": sweep, "trial": str(number), **(tags or {})}, metrics=metrics, **others)


def listing() -> list[runs.Run]:
    """The 27 of Listing A.3, the perplexity telling the trial's number."""
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


def texts(made: Section) -> str:
    return "\n".join(block.text for block in made.blocks if isinstance(block, Text))


def table(made: Section) -> list[dict[str, str]]:
    (found,) = (block for block in made.blocks if isinstance(block, Table))
    return [dict(zip(found.header, (cell.text for cell in row), strict=True)) for row in found.cells()]


def names(made: Section) -> list[str]:
    return [block.name for block in made.blocks if isinstance(block, Figure)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    """The axes of each figure before it is closed."""
    seen: dict[str, list] = {}
    finish = grid_figures.figures.finish

    def spy(drawing, name: str, caption: str) -> Figure:
        drawing.draw_without_rendering()
        seen[name] = list(drawing.axes)
        return finish(drawing, name, caption)

    monkeypatch.setattr(grid_figures.figures, "finish", spy)
    return seen


def cells(axes) -> dict[tuple[str, str], str]:
    """The text of each cell by the labels of its column and row."""
    columns, rows = ([tick.get_text() for tick in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))
    return {(columns[int(t.get_position()[0])], rows[int(t.get_position()[1])]): t.get_text() for t in axes.texts}


def test_the_27_of_the_report(drawn: dict[str, list]) -> None:
    made = grid.section(listing())
    assert names(made) == ["grid_values", "grid_learning_rate"]
    panels = drawn["grid_values"][:3]
    assert [axes.get_title(loc="left") for axes in panels] == ["Layers: 8", "Layers: 12", "Layers: 16"]
    assert (panels[0].get_xlabel(), panels[0].get_ylabel()) == ("Learning rate", "Dropout")
    expected = itertools.product(("6e-06", "0.0006", "0.06"), ("0", "0.1", "0.2"), range(3))
    for number, (lr, dropout, panel) in enumerate(expected):
        shown = cells(panels[panel])[lr, dropout]
        assert shown == (f"{100 + number}" if number else "100\nbest")
    assert [row["Trial"] for row in table(made)] == [str(number) for number in range(27)]
    assert [*table(made)[0].items()][:-1] == [
        *(("Trial", "0"), ("Learning rate", "6e-06"), ("Dropout", "0"), ("Layers", "8"), ("State", "finished")),
        *(("Val perplexity", "100"), ("Val nll (nats per token)", "4.6052"), ("Val bits per byte", "1.5351")),
    ]


def test_the_learning_rate_of_the_report(drawn: dict[str, list]) -> None:
    """At most 2.45 % of nominal, as computed from the code that the report ran."""
    found = listing()
    said = texts(grid.section(found))
    assert "at a logged step was 2.45 % of its nominal one" in said
    assert "27 of 27 trials lie inside of their warm-up, as 50 steps do inside of 2000" in said
    (axes,) = drawn["grid_learning_rate"]
    curves = {line.get_label(): line for line in axes.lines if line.get_label().startswith("learning rate")}
    assert list(curves) == ["learning rate 6e-06", "learning rate 0.0006", "learning rate 0.06"]
    assert curves["learning rate 0.06"].get_xdata().tolist() == [10, 20, 30, 40, 50]
    assert curves["learning rate 0.06"].get_ydata()[-1] == pytest.approx(0.06 * 49 / 2000)
    assert axes.get_yscale() == "log"
    nominal = [line.get_ydata()[0] for line in axes.lines if line not in curves.values()]
    assert nominal == [6e-6, 6e-4, 6e-2]


def test_a_schedule_that_reaches_its_rate() -> None:
    points = [(10, "train/lr", 0.1), (20, "train/lr", 0.05)]
    given = {"train__warmup": 0.25, "train__max_steps": 20}
    found = [
        trial(0, 10.0, points=points, optimizer__lr=0.1, **given),
        trial(1, 11.0, points=[(20, "train/lr", 0.1)], optimizer__lr=0.2, **given),
    ]
    said = grid.learning_rate_text(grid_trials.trials(found))
    assert "was 50 % to 100 % of its nominal one" in said
    assert "inside of their" not in said
    assert "One step in" not in said
    found[0].params["train.log_every"] = "10"
    assert "One step in 10 is logged" in grid.learning_rate_text(grid_trials.trials(found))


def test_a_schedule_that_was_cut_short_is_not_another(drawn: dict[str, list]) -> None:
    found = [
        trial(0, 10.0, points=warming_up(0.1), optimizer__lr=0.1, model__dropout=0),
        trial(1, tags={"diverged": "true"}, points=warming_up(0.1, 20), optimizer__lr=0.1, model__dropout=0.1),
        trial(2, 12.0, points=warming_up(0.3), optimizer__lr=0.3, model__dropout=0),
        trial(3, 13.0, optimizer__lr=0.3, model__dropout=0.1),
    ]
    grid.section(found)
    (axes,) = drawn["grid_learning_rate"]
    shown = [line.get_label() for line in axes.lines if line.get_label().startswith("learning")]
    assert shown == ["learning rate 0.1", "learning rate 0.3"]


def test_states_of_cells(drawn: dict[str, list]) -> None:
    states = {
        (0.1, 0): {"tags": {"diverged": "true"}, "value": 5.0},  # its last value is not a result
        (0.1, 0.1): {"tags": {"pruned": "true"}, "value": 4.0},
        (0.1, 0.2): {"status": "FAILED"},
        (0.2, 0): {"status": "RUNNING"},
        (0.2, 0.1): {"status": "KILLED"},
        (0.2, 0.2): {},
        (0.3, 0): {"value": 10.0},
        (0.3, 0.1): {"value": 5e4},
    }
    found = [
        trial(i, optimizer__lr=lr, model__dropout=dropout, **others)
        for i, ((lr, dropout), others) in enumerate(states.items())
    ]
    made = grid.section(found)
    axes, bar = drawn["grid_values"]
    assert cells(axes) == {
        **{("0.1", "0"): "diverged", ("0.1", "0.1"): "pruned", ("0.1", "0.2"): "failed"},
        **{("0.2", "0"): "running", ("0.2", "0.1"): "killed", ("0.2", "0.2"): "no value"},
        **{("0.3", "0"): "10\nbest", ("0.3", "0.1"): "50k", ("0.3", "0.2"): "missing"},
    }
    hatched = [patch.get_hatch() for patch in axes.patches if patch.get_hatch()]
    assert len(hatched) == 6
    assert hatched.count("xxx") == 1
    assert bar.get_yscale() == "log"
    assert [row["State"] for row in table(made)][:2] == ["finished", "finished"]
    assert [row["Val perplexity"] for row in table(made)][2:] == [DASH] * 6
    assert "8 trials (3 finished, 1 pruned, 1 diverged, 1 failed, 1 killed, 1 running)" in texts(made)


def test_text_of_a_cell_contrasts_with_it(drawn: dict[str, list]) -> None:
    from matplotlib.colors import to_rgb

    def luminance(colour) -> float:  # WCAG 2
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    found = [trial(i, 10.0 + i, optimizer__lr=i // 6 + 1, model__dropout=i % 6) for i in range(36)]
    grid.section(found)
    axes = drawn["grid_values"][0]
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


def test_mean_and_standard_error_over_seeds() -> None:
    values = {0: (10.0, 12.0, 17.0), 1: (20.0, 21.0, 22.0), 2: (5.0, 6.0, math.nan)}
    found = [
        trial(number, value, optimizer__lr=number + 1, seed=seed, tags={"diverged": str(math.isnan(value)).lower()})
        for number, each in values.items()
        for seed, value in enumerate(each)
    ]
    made = grid.section(found)
    first, second, last = table(made)
    assert (first["Val perplexity"], second["Val perplexity"], last["Val perplexity"]) == ("13", "21", DASH)
    assert float(first["Standard error"]) == pytest.approx(statistics.stdev(values[0]) / math.sqrt(3), rel=1e-2)
    assert float(first["Val nll (nats per token)"]) == pytest.approx(np.log(values[0]).mean(), rel=1e-4)
    assert (last["State"], last["Seeds"], last["Standard error"]) == ("diverged", "3", DASH)
    assert names(made) == ["grid_values"]
    assert "No run of it has a curve of train/lr" in texts(made)


def test_an_axis_of_seeds_is_no_axis() -> None:
    found = [trial(i, 10.0 + i, optimizer__lr=i // 2 + 1, seed=i % 2) for i in range(4)]
    each = grid_trials.trials(found)
    assert [(t.number, t.mean()) for t in each] == [("0, 1", 10.5), ("2, 3", 12.5)]
    assert grid_trials.axes(each) == ["optimizer.lr"]


def test_the_last_run_of_a_seed_counts_and_a_finished_one_before_one_that_is_not() -> None:
    first, second, third = (trial(0, value, optimizer__lr=1, seed=1) for value in (10.0, 11.0, 12.0))
    third.status = "FAILED"
    (each,) = grid_trials.trials([third, first, second])
    assert [run.id for run in each.runs] == [second.id]


def axes_of(*settings: dict[str, str]) -> list[str]:
    return grid_trials.axes([grid_trials.Trial(each, []) for each in settings])


def test_axes_are_what_varies_independently() -> None:
    losses = [{"loss._target_": "ce"}, {"loss._target_": "sq", "loss.weight": "1.0"}]
    rates = [{"optimizer.lr": "1"}, {"optimizer.lr": "2"}]
    depths = [{"model.n_layer": "1"}, {"model.n_layer": "2"}]
    paired = [{"optimizer.lr": "1", "train.warmup": "5"}, {"optimizer.lr": "2", "train.warmup": "7"}]
    product = itertools.product

    assert axes_of(*losses) == ["loss._target_"]
    assert axes_of(*({**a, **b} for a, b in product(losses, rates))) == ["optimizer.lr", "loss._target_"]
    assert axes_of(*({**a, **b} for a, b in product(depths, paired))) == ["optimizer.lr", "model.n_layer"]
    weights = [{"loss._target_": "ce"}, *({"loss._target_": "sq", "loss.weight": w} for w in "12")]
    assert axes_of(*weights) == ["loss.weight"]
    assert axes_of({"a": "1"}) == []


def test_values_in_the_order_of_numbers() -> None:
    def values(*given: str | None) -> list[str | None]:
        return grid_trials.values([grid_trials.Trial({"k": v} if v else {}, []) for v in given], "k")

    assert values("16", "8", "12", "8") == ["8", "12", "16"]
    assert values("6e-06", "0.06", "0.0006") == ["6e-06", "0.0006", "0.06"]
    assert values("b", None, "a", "2") == [None, "2", "a", "b"]


def test_more_than_three_settings(drawn: dict[str, list]) -> None:
    each = itertools.product((1, 2), (0.0, 0.1), (1, 2), (64, 128))
    found = [
        trial(i, 50.0 - i, optimizer__lr=lr, model__dropout=p, model__n_layer=n, model__n_embd=d)
        for i, (lr, p, n, d) in enumerate(each)
    ]
    made = grid.section(found)
    assert "The figure shows the trials with model.n_embd 128, as in the best one" in texts(made)
    shown = {text for axes in drawn["grid_values"][:2] for text in cells(axes).values()}
    assert shown == {*(str(50 - i) for i in range(1, 15, 2)), "35\nbest"}
    assert len(table(made)) == 16


def test_which_sweep_is_drawn() -> None:
    def sweep(name: str, **axes: tuple) -> list[runs.Run]:
        combinations = itertools.product(*axes.values())
        return [trial(i, 9.0 + i, sweep=name, **dict(zip(axes, c, strict=True))) for i, c in enumerate(combinations)]

    found = [
        *sweep("grid-old", optimizer__lr=(1, 2), model__dropout=(0, 1)),
        *sweep("grid-new", optimizer__lr=(1, 2), model__dropout=(2, 3)),
        *sweep("grid-one", optimizer__lr=(1, 2)),
        *sweep("study", optimizer__lr=(1.1, 2.2), model__dropout=(0.1, 0.2)),
    ]
    said = texts(grid.section(found[::-1]))
    assert said.startswith("grid-new, 4 trials")
    assert "Other sweeps: study (4 runs), grid-one (2 runs), grid-old (4 runs)" in said
    assert texts(grid.section(found, "grid-old")).startswith("grid-old")
    assert texts(grid.section(found[8:10])).startswith("grid-one, 2 trials")
    with pytest.raises(ValueError, match="no grid 'study'; there are grid-one, grid-new, grid-old"):
        grid.section(found, "study")
    assert "There is no grid that varies a setting: python run.py -m hydra/sweeper=grid" in texts(
        grid.section(found[10:])
    )


def test_nothing_at_all() -> None:
    assert [type(block) for block in grid.section([]).blocks] == [Text]
    with pytest.raises(ValueError, match=r"there are none: python run\.py -m"):
        grid.section([], "grid-a")
    alone = grid.section([trial(0, 3.0, optimizer__lr=1)], "grid-a")
    assert "do not differ in any setting but the seed" in texts(alone)
    assert len(table(alone)) == 1


def test_no_trial_has_a_result() -> None:
    found = [
        trial(i, status="FAILED", optimizer__lr=lr, model__dropout=p)
        for i, (lr, p) in enumerate(itertools.product((1, 2), (0, 1)))
    ]
    made = grid.section(found)
    assert names(made) == ["grid_values"]
    assert "The best" not in texts(made)
    assert names(grid.section(found[:2])) == ["grid_values"]


def test_what_another_sweep_had_trained_fills_the_gap(drawn: dict[str, list]) -> None:
    """The grid sweeper does not train again what MLflow has of the same program."""

    def elsewhere(value: float, **others: object) -> runs.Run:
        return trial(0, value, sweep="grid-b", optimizer__lr=2, model__dropout=1, **others)

    found = [
        elsewhere(5.0),
        elsewhere(4.0, tags={"code": "another"}),
        elsewhere(3.0, status="FAILED"),
        elsewhere(2.0, seed=9),
        elsewhere(1.0, tags={"text": "another"}),
        *(trial(i, 10.0 + i, optimizer__lr=lr, model__dropout=p) for i, (lr, p) in enumerate([(1, 0), (1, 1), (2, 0)])),
    ]
    made = grid.section(found)
    assert cells(drawn["grid_values"][0])["2", "1"] == "5\nbest"
    assert (table(made)[0]["Trial"], table(made)[0]["State"]) == (DASH, "finished (another sweep)")
    assert len(table(made)) == 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for i, (lr, dropout) in enumerate(itertools.product((0.1, 0.2), (0.0, 0.1))):
        tags = {"sweep": "grid-x", "trial": str(i)}
        status = "FAILED" if i == 3 else "FINISHED"
        add_run(folder, "squentropy", i, status=status, tags=tags, optimizer__lr=lr, model__dropout=dropout)
    return folder


def test_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["analysis.grid", *store])
    assert grid.main() == 0
    printed = capsys.readouterr().out
    assert "grid-x, 4 trials (3 finished, 1 failed)" in printed
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"grid_{name}.{end}" for name in ("values", "learning_rate") for end in ("png", "svg")),
        "grid.csv",
    }
    assert len((tmp_path / "grid.csv").read_text().splitlines()) == 5
    monkeypatch.setattr(sys, "argv", ["analysis.grid", "grid-nosuch", *store])
    assert grid.main() == 2
    assert capsys.readouterr().err == "error: no grid 'grid-nosuch'; there are grid-x\n"

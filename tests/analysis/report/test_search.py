"""The search section: studies are read without creating a database, ranked as Optuna does, and drawn."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from matplotlib.figure import Figure as Drawing
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from analysis import figures
from analysis.page import DASH, Section, Table
from analysis.report import importance, optuna_study, parallel_coordinates, search, search_figures
from nanosq.sweeps import attributes
from tests.analysis.blocks import texts

SPACE: dict[str, BaseDistribution] = {
    "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
    "model.n_layer": IntDistribution(1, 4),
    "optimizer": CategoricalDistribution(["adamw", "sgd"]),
}
LINK = "http://127.0.0.1:5000/#/experiments/1/runs/0123456789"


def trial(
    values: Sequence[float] | None = None,
    *,
    lr: float = 1e-3,
    n_layer: int = 2,
    optimizer: str = "adamw",
    intermediate: dict[int, float] | None = None,
    state: TrialState = TrialState.COMPLETE,
    attrs: dict[str, Any] | None = None,
) -> FrozenTrial:
    return create_trial(
        state=state,
        values=values,
        params={"optimizer.lr": lr, "model.n_layer": n_layer, "optimizer": optimizer},
        distributions=SPACE,
        intermediate_values=intermediate or {},
        user_attrs=attrs or {},
    )


def add(url: str, name: str, trials: Sequence[FrozenTrial], directions: Sequence[str] = ("minimize",), **settings: Any):
    study = optuna.create_study(study_name=name, storage=url, directions=list(directions))
    study.set_user_attr("settings", settings)
    study.add_trials(trials)
    return study


def single() -> list[FrozenTrial]:
    attrs = {
        "mlflow_link": LINK.replace("//", "//me:secret@"),
        "mlflow_run_id": "0123456789",
        "standard_errors": [0.25],
    }
    return [
        trial([8.0], intermediate={10: 90.0, 100: 8.0}, lr=1e-2),
        trial([16.0], intermediate={10: 120.0, 100: 16.0}, lr=1e-4),
        trial(intermediate={10: 700.0, 30: 400.0}, state=TrialState.PRUNED, attrs={"pruned": True}),
        trial([4.125], intermediate={10: 80.0, 100: 4.125}, attrs=attrs),
        trial([1.0], intermediate={10: math.inf}, attrs={"diverged": True}),
        trial(state=TrialState.FAIL),
        trial([5.0], intermediate={10: 85.0, 100: 5.0}),
        trial(intermediate={10: 600.0}, state=TrialState.PRUNED, attrs={"pruned": True}),
    ]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Studies with one metric, with two (the last with trials), and without trials (the last created)."""
    url = f"sqlite:///{tmp_path_factory.mktemp('optuna')}/optuna.db"
    add(url, "single", single(), **{"train.max_steps": 100, "hydra.sweeper.objectives": ["val/perplexity"]})
    add(url, "upwards", [trial([value]) for value in (0.2, 0.5, 0.3)], ["maximize"])
    both = [
        trial([math.sin(i), math.cos(3 * i)], n_layer=1 + i % 4, lr=10 ** (-4 + 2 * (i % 7) / 7)) for i in range(24)
    ]
    both[5] = trial([2.0, math.inf], attrs={"diverged": True})
    add(url, "two", both, ["maximize", "minimize"], **{"hydra.sweeper.objectives": ["val/accuracy", "train/seconds"]})
    add(url, "empty", [])
    return url


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database to which tests add studies of their own."""
    return f"sqlite:///{tmp_path_factory.mktemp('optuna')}/optuna.db"


def names(section: Section) -> list[str]:
    """Return the names of the files of a section."""
    return [block.name for block in section.blocks if isinstance(block, Table | figures.Figure)]


def line(drawing: Drawing, label: str) -> tuple[list[float], list[float]]:
    (curve,) = [curve for curve in drawing.axes[0].lines if curve.get_label() == label]
    return list(curve.get_xdata()), list(curve.get_ydata())


def test_the_study_that_was_started_last_is_shown(url: str) -> None:
    study = search.load(url)
    assert study.name == "two"
    assert study.others == ["single", "upwards"]
    assert "single, upwards" in texts(search.section(url))


def test_states_and_ranks(url: str) -> None:
    study = search.load(url, "single")
    assert study.counts == {"complete": 4, "pruned": 2, "diverged": 1, "failed": 1}
    assert [trial.number for trial in study.ranked()] == [3, 6, 0, 1, 2, 7, 4, 5]
    assert study.trials[4].intermediate == {}
    assert study.metrics == [optuna_study.StudyMetric("Validation perplexity", maximize=False)]


def test_steps_saved_by_pruning(url: str) -> None:
    assert search.load(url, "single").steps() == (70 + 90, 600)
    assert "Pruning saved 160 of 600 steps (27 %)." in texts(search.section(url, "single"))


def test_saved_steps_if_the_search_varies_the_steps(scratch: str) -> None:
    axis = {"train.max_steps": IntDistribution(50, 200)}
    trials = [
        create_trial(values=[1.0], params={"train.max_steps": 200}, distributions=axis, intermediate_values={200: 1.0}),
        create_trial(
            state=TrialState.PRUNED, params={"train.max_steps": 50}, distributions=axis, intermediate_values={20: 3.0}
        ),
    ]
    add(scratch, "steps", trials, **{"train.max_steps": 100})
    assert search.load(scratch, "steps").steps() == (30, 250)


def test_saved_steps_are_not_shown_if_unknown(url: str) -> None:
    assert math.isnan(search.load(url, "upwards").steps()[1])
    assert "Pruning" not in texts(search.section(url, "upwards"))


def test_table_of_the_best_trials(url: str) -> None:
    (table,) = [block for block in search.section(url, "single").blocks if isinstance(block, Table)]
    assert table.header == [
        "trial",
        "state",
        "Validation perplexity",
        *sorted(SPACE, key=list(SPACE).index),
        "MLflow run",
    ]
    best, *_, last = table.cells()
    assert [cell.value for cell in best[:3]] == [3, None, 4.125]
    assert best[2].text == "4.125 ± 0.25"
    assert best[2].strong
    assert (best[-1].text, best[-1].link) == ("01234567", LINK)
    pruned = table.cells()[4]
    assert [cell.text for cell in pruned[1:3]] == ["pruned", DASH]
    assert last[1].text == "failed"


def test_the_table_has_ten_trials(url: str) -> None:
    (table,) = [block for block in search.section(url, "two").blocks if isinstance(block, Table)]
    assert len(table.rows) == search.N_BEST


def test_the_front_equals_that_of_optuna(url: str) -> None:
    study = optuna.load_study(study_name="two", storage=url)
    expected = {trial.number for trial in study.best_trials} - {5}  # which diverged
    assert {trial.number for trial in search.load(url, "two").front()} == expected
    assert 1 < len(expected) < 23


def test_ties_on_the_front(scratch: str) -> None:
    add(scratch, "ties", [trial(values) for values in ([1.0, 1.0], [1.0, 2.0], [1.0, 1.0])], ["minimize"] * 2)
    assert [trial.number for trial in search.load(scratch, "ties").front()] == [0, 2]


def test_a_metric_that_is_maximized(url: str, drawings: dict[str, Drawing]) -> None:
    study = search.load(url, "upwards")
    assert [trial.number for trial in study.ranked()] == [1, 2, 0]
    assert [trial.number for trial in study.front()] == [1]
    assert "trial 1, with metric 0.5" in texts(search.section(url, "upwards"))
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
    lines = [
        list(curve.get_ydata()) for curve in drawings["search-parallel"].axes[0].lines if len(curve.get_ydata()) == 4
    ]
    assert len(lines) == 4
    # learning rate 1e-3 of 1e-4..1e-2, two layers of 1..4, the first of two optimizers, the least perplexity on top
    assert lines[-1] == pytest.approx([0.5, 1 / 3, 0.25, 1.0])
    assert lines[0] == pytest.approx([1.0, 1 / 3, 0.25, 1 - (8 - 4.125) / (16 - 4.125)])  # no factor of 5: linear
    assert lines[1] == pytest.approx([0.0, 1 / 3, 0.25, 0.0])


def test_a_setting_that_some_trials_lack(scratch: str, drawings: dict[str, Drawing]) -> None:
    axis = FloatDistribution(0, 1)
    trials = [
        create_trial(values=[1.0], params={"a": 0.5}, distributions={"a": axis}),
        create_trial(values=[2.0], params={"a": 1.0, "b": 0.25}, distributions={"a": axis, "b": axis}),
    ]
    add(scratch, "conditional", trials)
    (table,) = [block for block in search.section(scratch, "conditional").blocks if isinstance(block, Table)]
    assert [row[4].text for row in table.cells()] == [DASH, "0.25"]
    ax = drawings["search-parallel"].axes[0]
    assert [0.5, parallel_coordinates.NOT_SET, 1.0] in [list(curve.get_ydata()) for curve in ax.lines]
    assert "not set" in [text.get_text() for text in ax.texts]


def quadratic(n: int) -> list[FrozenTrial]:
    """The learning rate matters, depth hardly, the optimizer not at all."""
    trials = []
    for i in range(n):
        exponent, n_layer = (i * 37 % n) / n, 1 + i % 4
        value = exponent**2 + 0.01 * n_layer
        trials.append(
            trial([value], lr=10 ** (-4 + 2 * exponent), n_layer=n_layer, optimizer=["adamw", "sgd"][i // 2 % 2])
        )
    return trials


def test_importance(scratch: str) -> None:
    add(scratch, "quadratic", quadratic(40))
    study = search.load(scratch, "quadratic")
    (parts,) = importance.estimate(study)
    assert next(iter(parts)) == "optimizer.lr"
    assert min(parts["optimizer.lr"]) > 0.8
    assert all(len(values) == importance.N_FORESTS for values in parts.values())
    for forest in zip(*parts.values(), strict=True):
        assert sum(forest) == pytest.approx(1.0)
    assert importance.estimate(study) == [parts]


def test_importance_for_each_metric(url: str) -> None:
    assert len(importance.estimate(search.load(url, "two"))) == 2


@pytest.mark.parametrize(
    ("name", "trials", "why"),
    [
        ("few", quadratic(9), "9 complete trials are too few"),
        ("constant", [trial([1.0], lr=1e-4 * (i + 1)) for i in range(12)], "the same value"),
    ],
)
def test_importance_that_cannot_be_estimated(scratch: str, name: str, trials: list[FrozenTrial], why: str) -> None:
    add(scratch, name, trials)
    section = search.section(scratch, name)
    assert why in texts(section)
    assert "search-importance" not in names(section)


def test_figures_with_one_metric_and_with_two(url: str) -> None:
    assert names(search.section(url, "single")) == [
        "search-trials",
        "search-history",
        "search-intermediate",
        "search-parallel",
    ]
    assert names(search.section(url, "two")) == [
        "search-trials",
        "search-pareto",
        "search-parallel",
        "search-importance",
    ]


def test_colors_are_those_of_the_page(url: str) -> None:
    light = {color for color, _ in figures.THEME.values()}
    for name in ("single", "two"):
        for part in search.section(url, name).blocks:
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
    section = search.section(scratch, "begun")
    assert "1 pruned, 1 failed, 1 running" in texts(section)
    assert "No trial is complete" in texts(section)
    assert names(section) == ["search-trials", "search-history", "search-intermediate"]


def test_the_first_trial_is_running(scratch: str, recwarn: pytest.WarningsRecorder) -> None:
    add(scratch, "running", []).ask().report(3.0, 5)
    assert names(search.section(scratch, "running")) == ["search-trials", "search-intermediate"]
    assert not [warning for warning in recwarn if "label" in str(warning.message)]


def test_without_a_search_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = search.section()
    assert texts(section).startswith("There is no database optuna.db")
    assert texts(section).endswith(search.COMMAND)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "has no study"), (b"no database at all, but a text of some length" * 100, "file is not a database")],
)
def test_a_file_without_studies_is_not_changed(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"--storage, --study: .*{why}"):
        search.section(f"sqlite:///{path}")
    assert path.read_bytes() == content
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "url",
    ["nonsense", "nosuch://host/x", "sqlite://", "sqlite:///folder/missing.db", "postgresql://u:secret@127.0.0.1:1/x"],
)
def test_a_storage_that_cannot_be_read_is_an_error_without_its_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--storage, --study: ") as caught:
        search.section(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert [*tmp_path.iterdir()] == []


def test_an_empty_study_and_an_unknown_one(url: str) -> None:
    with pytest.raises(ValueError, match=r"--storage, --study: No trial has started in .*, study empty"):
        search.section(url, "empty")
    with pytest.raises(ValueError, match=r"no study 'other' .*; there are empty, single, two, upwards"):
        search.section(url, "other")


def test_reading_writes_nothing(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    before = path.read_bytes()
    search.section(url, "single")
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_names_of_attributes_are_those_of_the_sweeper() -> None:
    for name in ("SETTINGS", "RUN_ID", "LINK", "ERRORS", "DIVERGED"):
        assert getattr(optuna_study, name) == getattr(attributes, name)


def test_command(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--storage", url, "--out", str(tmp_path)]
    assert search.main([*options, "--study", "single"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("The best of 4 complete trials is trial 3, with validation perplexity 4.125.\n")
    assert "MLflow run" in printed
    assert {"search-trials.csv", "search-history.png", "search-parallel.svg"} <= {p.name for p in tmp_path.iterdir()}
    assert search.main([*options, "--study", "other"]) == 2
    assert capsys.readouterr().err.startswith("error: no study 'other' in sqlite://")

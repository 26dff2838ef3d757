import itertools
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from analysis.page import DASH, Section, Text
from analysis.recorded_run import RecordedRun
from analysis.report import grid, grid_trials
from tests.analysis.blocks import figure_names, tables, texts
from tests.analysis.conftest import MLflowStore
from tests.analysis.recorded import complete_run, trial


def warming_up(nominal: float, steps: int = 50) -> list[tuple[int, str, float]]:
    """Return the logged learning rates of nanoGPT in 2023: iteration i, counted from 0, has lr * i / 2000."""
    return [(step, "train/lr", nominal * (step - 1) / 2000) for step in range(10, steps + 1, 10)]


def table(section: Section) -> list[dict[str, str]]:
    """Return the rows of the table of trials by the names of the columns."""
    grid_table = tables(section)["grid"]
    return [dict(zip(grid_table.header, (cell.text for cell in row), strict=True)) for row in grid_table.cells()]


def test_learning_rate_of_trials_that_finish_their_warmup() -> None:
    points = [(10, "train/lr", 0.1), (20, "train/lr", 0.05)]
    warmup = {"train__warmup": 0.25, "train__max_steps": 20}
    recorded = [
        trial(0, 10.0, points=points, optimizer__lr=0.1, **warmup),
        trial(1, 11.0, points=[(20, "train/lr", 0.1)], optimizer__lr=0.2, **warmup),
    ]
    text = grid.learning_rate_text(grid_trials.trials(recorded))
    assert "was 50 % to 100 % of nominal" in text
    assert "within their warmup" not in text
    assert "steps are logged" not in text
    recorded[0].params["train.log_every"] = "10"
    assert "Every 10 steps are logged" in grid.learning_rate_text(grid_trials.trials(recorded))


def test_mean_and_standard_error_over_seeds() -> None:
    values = {0: (10.0, 12.0, 17.0), 1: (20.0, 21.0, 22.0), 2: (5.0, 6.0, math.nan)}
    recorded = [
        trial(number, value, optimizer__lr=number + 1, seed=seed, tags={"diverged": str(math.isnan(value)).lower()})
        for number, scores in values.items()
        for seed, value in enumerate(scores)
    ]
    section = grid.section(recorded)
    first, second, last = table(section)
    assert (first["Val perplexity"], second["Val perplexity"], last["Val perplexity"]) == ("13", "21", DASH)
    assert float(first["Standard error"]) == pytest.approx(statistics.stdev(values[0]) / math.sqrt(3), rel=1e-2)
    assert float(first["Val nll (nats/token)"]) == pytest.approx(np.log(values[0]).mean(), rel=1e-4)
    assert (last["State"], last["Seeds"], last["Standard error"]) == ("diverged", "3", DASH)
    assert figure_names(section) == ["grid_values"]
    assert "No run has a curve of train/lr" in texts(section)


def test_seeds_that_are_listed_are_one_trial() -> None:
    section = grid.section([trial(0, value, seed=seed) for seed, value in ((1, 10.0), (2, 12.0), (3, 17.0))], "grid-a")
    (row,) = table(section)
    assert (row["Trial"], row["Val perplexity"], row["Seeds"]) == ("0", "13", "3")


def test_trials_on_different_text_are_not_compared_in_silence() -> None:
    note = "The trials differ in their text or tokens: their scores cannot be compared."
    for tags, is_noted in (({}, False), ({"text": "other"}, True)):
        trials = [trial(0, 9.0, optimizer__lr=1), trial(1, 8.0, optimizer__lr=2)]
        trials[1].tags.update(tags)
        assert (note in texts(grid.section(trials))) == is_noted


def test_the_newest_grid_with_two_axes_is_shown() -> None:
    def sweep(name: str, **axes: tuple) -> list[RecordedRun]:
        combinations = itertools.product(*axes.values())
        return [trial(i, 9.0 + i, sweep=name, **dict(zip(axes, c, strict=True))) for i, c in enumerate(combinations)]

    recorded = [
        *sweep("grid-old", optimizer__lr=(1, 2), model__dropout=(0, 1)),
        *sweep("grid-new", optimizer__lr=(1, 2), model__dropout=(2, 3)),
        *sweep("grid-one", optimizer__lr=(1, 2)),
        *sweep("study", optimizer__lr=(1.1, 2.2), model__dropout=(0.1, 0.2)),
    ]
    text = texts(grid.section(recorded[::-1]))
    assert text.startswith("grid-new: 4 trials")
    assert "Other sweeps: study (4 runs), grid-one (2 runs), grid-old (4 runs)" in text
    assert texts(grid.section(recorded, "grid-old")).startswith("grid-old")
    assert texts(grid.section(recorded[8:10])).startswith("grid-one: 2 trials")
    with pytest.raises(ValueError, match="no grid 'study'; there are grid-one, grid-new, grid-old"):
        grid.section(recorded, "study")
    assert "There is no grid that varies a setting. Train one: python run.py -m hydra/sweeper=grid" in texts(
        grid.section(recorded[10:])
    )


def test_without_a_grid_there_is_a_sentence() -> None:
    assert [type(block) for block in grid.section([]).blocks] == [Text]
    with pytest.raises(ValueError, match=r"there are none; train one: python run\.py -m"):
        grid.section([], "grid-a")
    alone = grid.section([trial(0, 3.0, optimizer__lr=1)], "grid-a")
    assert "The trials differ only in their seed" in texts(alone)
    assert len(table(alone)) == 1


def test_a_grid_without_results_is_drawn() -> None:
    recorded = [
        trial(i, status="FAILED", optimizer__lr=lr, model__dropout=p)
        for i, (lr, p) in enumerate(itertools.product((1, 2), (0, 1)))
    ]
    section = grid.section(recorded)
    assert figure_names(section) == ["grid_values"]
    assert "Best validation" not in texts(section)
    assert figure_names(grid.section(recorded[:2])) == ["grid_values"]


def test_command(store: MLflowStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = [
        complete_run(
            seed=i,
            status="FAILED" if i == 3 else "FINISHED",
            tags={"sweep": "grid-x", "trial": str(i)},
            optimizer__lr=lr,
            model__dropout=dropout,
        )
        for i, (lr, dropout) in enumerate(itertools.product((0.1, 0.2), (0.0, 0.1)))
    ]
    store.write("grid", recorded)
    options = ["--tracking-uri", store.uri, "--experiment", "grid", "--out", str(tmp_path)]
    assert grid.main(options) == 0
    assert "grid-x: 4 trials (3 finished, 1 failed)" in capsys.readouterr().out
    figures = {f"grid_{name}.{ending}" for name in ("values", "learning_rate") for ending in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == {*figures, "grid.csv"}
    assert len((tmp_path / "grid.csv").read_text().splitlines()) == 5
    assert grid.main(["grid-nosuch", *options]) == 2
    assert capsys.readouterr().err == "error: no grid 'grid-nosuch'; there are grid-x\n"

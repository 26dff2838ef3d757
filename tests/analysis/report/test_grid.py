import itertools
import math
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis import runs
from analysis.figures import Figure
from analysis.page import DASH, Section, Table, Text
from analysis.report import grid, grid_trials
from tests.analysis.fake import trial
from tests.analysis.store import add_run


def warming_up(nominal: float, steps: int = 50) -> list[tuple[int, str, float]]:
    """nanoGPT's schedule of 2023: iteration i, from 0, has lr * i / 2000; logged after every tenth and the last."""
    return [(step, "train/lr", nominal * (step - 1) / 2000) for step in range(10, steps + 1, 10)]


def texts(made: Section) -> str:
    return "\n".join(block.text for block in made.blocks if isinstance(block, Text))


def table(made: Section) -> list[dict[str, str]]:
    (found,) = (block for block in made.blocks if isinstance(block, Table))
    return [dict(zip(found.header, (cell.text for cell in row), strict=True)) for row in found.cells()]


def names(made: Section) -> list[str]:
    return [block.name for block in made.blocks if isinstance(block, Figure)]


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


def test_which_sweep_is_drawn() -> None:
    def sweep(name: str, **axes: tuple) -> list[runs.RecordedRun]:
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
    monkeypatch.setattr(sys, "argv", ["analysis.report.grid", *store])
    assert grid.main() == 0
    printed = capsys.readouterr().out
    assert "grid-x, 4 trials (3 finished, 1 failed)" in printed
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"grid_{name}.{end}" for name in ("values", "learning_rate") for end in ("png", "svg")),
        "grid.csv",
    }
    assert len((tmp_path / "grid.csv").read_text().splitlines()) == 5
    monkeypatch.setattr(sys, "argv", ["analysis.report.grid", "grid-nosuch", *store])
    assert grid.main() == 2
    assert capsys.readouterr().err == "error: no grid 'grid-nosuch'; there are grid-x\n"

import math

import numpy as np
import pytest
from scipy import stats

from analysis import runs
from analysis.page import Samples, Table, Text
from analysis.report import scores
from tests.analysis.store import add_run


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, runs.RecordedSetting]:
    folder = tmp_path_factory.mktemp("store")
    for seed in (1, 2, 3):
        add_run(folder, "cross_entropy", seed, optimizer__lr=0.02)
        add_run(folder, "squentropy", seed + 1, leave_out=("test/ece",))
    add_run(folder, "squentropy", 5, status="FAILED")
    add_run(folder, "brier", 9, leave_out=("samples.txt",))
    return runs.best(runs.load(f"sqlite:///{folder}/mlflow.db"))


def tables(chosen: dict[str, runs.RecordedSetting]) -> dict[str, Table]:
    return {block.name: block for block in scores.section(chosen).blocks if isinstance(block, Table)}


def test_table_1(chosen: dict[str, runs.RecordedSetting]) -> None:
    table = tables(chosen)["table_1"]
    rows = {row[0].text: dict(zip(table.header, row, strict=True)) for row in table.cells()}
    assert list(rows) == [*scores.REPORT, "cross_entropy", "brier", "squentropy"]
    assert rows["squentropy, the report"]["test perplexity"].value == 5.2
    values = [run.metric("test/nll") for run in chosen["squentropy"].runs]
    cell = rows["squentropy"]["test nll, nats/token"]
    assert cell.value == pytest.approx(np.mean(values))
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert cell.text.endswith(f"± {(high - low) / 2:.2g}")
    assert "±" not in rows["brier"]["test nll, nats/token"].text  # one seed
    assert rows["cross_entropy"]["accuracy, %"].value == pytest.approx(
        100 * chosen["cross_entropy"].mean("test/accuracy")
    )
    assert rows["squentropy"]["seeds"].text == "3 (and 1 failed)"
    assert rows["squentropy"]["ece, %"].value is None  # the metric is missing
    assert [name for name, row in rows.items() if row["test nll, nats/token"].strong] == ["cross_entropy"]
    assert not any(row["test objective, own unit"].strong for row in rows.values())


def test_settings_and_runs(chosen: dict[str, runs.RecordedSetting]) -> None:
    found = tables(chosen)
    assert "optimizer.lr" in found["settings"].header
    assert "model.n_layer" not in found["settings"].header
    for row in found["runs"].cells():
        run = next(run for setting in chosen.values() for run in setting.runs if run.id == row[-1].value)
        assert row[-1].link == run.link
        assert row[3].value == run.metric("test/nll")


def test_interval() -> None:
    assert math.isnan(scores.interval([1.0]))
    assert scores.interval([1.0, 2.0, 4.0]) == pytest.approx(stats.sem([1, 2, 4]) * 4.30265, rel=1e-5)


def test_texts_of_a_seed_in_common(chosen: dict[str, runs.RecordedSetting]) -> None:
    both = {loss: chosen[loss] for loss in ("cross_entropy", "squentropy")}
    (samples,) = (block for block in scores.samples(both).blocks if isinstance(block, Samples))
    assert samples.columns == [
        ("cross_entropy, seed 2", "Once cross_entropy 2."),
        ("squentropy, seed 2", "Once squentropy 2."),
    ]
    notes = [block.text for block in scores.samples(chosen).blocks if isinstance(block, Text)]
    assert any("No text of brier: train with samples.count=3" in note for note in notes)

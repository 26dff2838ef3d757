import math

import numpy as np
import pytest
from scipy import stats

from analysis.page import DASH, Samples, number
from analysis.report import samples, scores, selection
from analysis.runs import RecordedSetting
from tests.analysis.blocks import tables, texts
from tests.analysis.recorded import complete_run

BANDS = ("frequent", "medium", "rare")


@pytest.fixture(scope="module")
def best() -> dict[str, RecordedSetting]:
    recorded = [complete_run("cross_entropy", seed, optimizer__lr=0.02) for seed in (1, 2, 3, 4)]
    recorded += [complete_run("squentropy", seed, without=("test/ece",)) for seed in (2, 3, 4)]
    recorded += [complete_run("squentropy", 5, status="FAILED"), complete_run("brier", 9, without=("samples.txt",))]
    return selection.choose(recorded)


def test_table_1(best: dict[str, RecordedSetting]) -> None:
    table = tables(scores.section(best))["table_1"]
    rows = {row[0].text: dict(zip(table.header, row, strict=True)) for row in table.cells()}
    assert list(rows) == [*scores.REPORT, "cross_entropy", "brier", "squentropy"]
    assert rows["squentropy, the report"]["test perplexity"].value == 5.2
    values = [run.metric("test/nll") for run in best["squentropy"].runs]
    cell = rows["squentropy"]["test nll, nats/token"]
    assert cell.value == pytest.approx(np.mean(values))
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert cell.text.endswith(f"± {number((high - low) / 2, 2).text}")
    assert "±" not in rows["brier"]["test nll, nats/token"].text  # one seed
    accuracy = 100 * best["cross_entropy"].mean("test/accuracy")
    assert rows["cross_entropy"]["accuracy, %"].value == pytest.approx(accuracy)
    assert rows["squentropy"]["seeds"].text == "3 (without 5)"
    assert rows["cross_entropy"]["seeds"].text == "3 (without 1)"
    assert rows["squentropy"]["ece, %"].value is None  # the metric is missing
    assert [name for name, row in rows.items() if row["test nll, nats/token"].strong] == ["cross_entropy"]
    assert not any(row["test objective, own unit"].strong for row in rows.values())


def test_calibrated_scores_and_nll_by_frequency() -> None:
    new = {"test/nll_calibrated", "test/ece_calibrated", "val/temperature", *(f"test/nll_{band}" for band in BANDS)}
    recorded = [complete_run("cross_entropy", seed) for seed in (1, 2)]
    recorded += [complete_run("squentropy", seed) for seed in (1, 2)]
    recorded += [complete_run("brier", seed, without=tuple(new)) for seed in (1, 2)]
    recorded[3].metrics["test/nll_calibrated"] = 0.01
    best = selection.choose(recorded)
    section = scores.section(best)
    table = tables(section)["calibrated"]
    rows = {row[0].text: dict(zip(table.header, row, strict=True)) for row in table.cells()}
    assert list(rows) == ["cross_entropy", "brier", "squentropy"]
    assert {metric for metric, *_ in scores.CALIBRATED.values()} == {*new, "test/nll", "test/ece"}
    for name, (metric, factor, _) in scores.CALIBRATED.items():
        assert rows["squentropy"][name].value == pytest.approx(best["squentropy"].mean(metric) * factor)
        assert (rows["brier"][name].text == DASH) == (metric in new)
    assert [name for name, row in rows.items() if row["test nll, nats/token"].strong] == ["cross_entropy"]
    assert [name for name, row in rows.items() if row["calibrated nll"].strong] == ["squentropy"]
    assert not any(row["temperature"].strong for row in rows.values())
    assert scores.SCALE in texts(section, "note")


def test_only_rows_with_the_same_seeds_compete() -> None:
    recorded = [complete_run("cross_entropy", seed) for seed in (1, 2, 3)]
    recorded += [complete_run("squentropy", seed) for seed in (1, 2)]
    recorded += [complete_run("brier", 9, tags={"code": "c"})]
    recorded[-1].metrics["test/nll"] = 1e-3
    section = scores.section(selection.choose(recorded))
    rows = {row[0].text: row for row in tables(section)["table_1"].cells()}
    assert [name for name, row in rows.items() if row[3].strong] == ["cross_entropy"]
    assert "brier is shown with seed 9 and cross_entropy with seeds 1, 2, because" in texts(section, "note")


def test_tables_of_settings_and_runs(best: dict[str, RecordedSetting]) -> None:
    by_name = tables(scores.section(best))
    assert "optimizer.lr" in by_name["settings"].header
    assert "model.n_layer" not in by_name["settings"].header
    recorded = {run.id: run for setting in best.values() for run in setting.runs}
    for row in by_name["runs"].cells():
        run = recorded[str(row[-1].value)]
        assert row[-1].link == run.link
        assert row[3].value == run.metric("test/nll")


def test_half_interval() -> None:
    assert math.isnan(scores.half_interval([1.0]))
    assert scores.half_interval([1.0, 2.0, 4.0]) == pytest.approx(stats.sem([1, 2, 4]) * 4.30265, rel=1e-5)


def test_texts_have_a_common_seed(best: dict[str, RecordedSetting]) -> None:
    both = {loss: best[loss] for loss in ("cross_entropy", "squentropy")}
    (block,) = (block for block in samples.section(both).blocks if isinstance(block, Samples))
    assert block.columns == [
        ("cross_entropy, seed 2", "Once cross_entropy 2."),
        ("squentropy, seed 2", "Once squentropy 2."),
    ]
    assert "There is no text of brier. Train with samples.count=3" in texts(samples.section(best), "note")

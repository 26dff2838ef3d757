"""The choice of the final runs, with runs that diverged, failed, were repeated or belong to a setting that lost."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.page import DASH, MINUS
from analysis.study import exploratory, further, page, results, tables

TOKENS = np.array([10, 20, 30])
METRICS = {metric for columns in (tables.MAIN, tables.SECONDARY) for metric, _ in columns.values()}


def row(
    role: str, arm: str, seed: int, nll: float, *, lr: float = 0.01, state: str = "finished", **more: Any
) -> dict[str, Any]:
    setting = {"optimizer": "Muon", "lr": lr, "dropout": 0.0, "warmup": 0.05, "layers": 4, "width": 128}
    setting |= {"vocabulary": "4096", "steps": 1000}
    has_test = role == "final" and state == "finished"
    scores = dict.fromkeys(METRICS, nll if has_test else np.nan) | {"val/nll": nll if state == "finished" else np.nan}
    identity = {"part": "text", "role": role, "arm": arm, "seed": seed, "state": state, "program": "a"}
    return identity | setting | scores | {"run_id": f"{role}-{arm}-{lr}-{seed}-{state}"} | more


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes rows as the files of results/. The story scores follow from the nll."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)

    def write(*rows: dict[str, Any]) -> None:
        finished = [each for each in rows if not np.isnan(each["test/nll"])]
        arrays = {each["run_id"]: each["test/nll"] * TOKENS * np.array([0.9, 1.0, 1.1]) for each in finished}
        results.replace("text", pd.DataFrame(rows), arrays | {"tokens": TOKENS, "bytes": 4 * TOKENS})

    return write


BASE = [row("tuning", "cross_entropy", 0, 3.0), *(row("final", "cross_entropy", seed, 3.0) for seed in (1, 2))]


def test_the_finals_are_those_of_the_best_tuning_run(write: Any) -> None:
    tuned = [row("tuning", "squentropy_1", 0, nll, lr=lr) for nll, lr in ((3.3, 0.01), (3.1, 0.02), (3.2, 0.04))]
    superseded = [row("final", "squentropy_1", seed, 2.0, lr=0.01) for seed in (1, 2)]  # better by luck: it lost
    chosen = [row("final", "squentropy_1", seed, 3.1, lr=0.02) for seed in (2, 1)]
    write(*BASE, *tuned, *chosen, *superseded)
    frame = results.finals("text")["squentropy_1"]
    assert frame["lr"].tolist() == [0.02, 0.02]
    assert frame["seed"].tolist() == [1, 2]
    nll, tokens, n_bytes = results.stories("text")
    assert nll["squentropy_1"].sum(axis=1) / tokens.sum() == pytest.approx([3.1 * 62 / 60] * 2)
    assert n_bytes.tolist() == [40, 80, 120]


def test_a_tuning_run_that_diverged_is_not_the_best(write: Any) -> None:
    tuned = [
        row("tuning", "squentropy_1", 0, 1.0, lr=0.04, state="diverged"),
        row("tuning", "squentropy_1", 0, 3.1, lr=0.02),
        row("tuning", "squentropy_1", 0, 0.5, lr=0.08, state="failed"),
    ]
    write(*BASE, *tuned, *(row("final", "squentropy_1", seed, 3.1, lr=0.02) for seed in (1, 2)))
    assert results.tuning("text", "squentropy_1")[["lr", "val/nll"]].to_numpy().tolist() == [
        [0.02, 3.1],
        [0.04, np.inf],
    ]
    assert results.finals("text")["squentropy_1"]["lr"].tolist() == [0.02, 0.02]


def test_a_final_run_that_failed_and_was_repeated_counts_once(write: Any) -> None:
    finals = [row("final", "squentropy_1", seed, 3.1, state=state) for seed, state in ((1, "failed"), (2, "finished"))]
    write(*BASE, row("tuning", "squentropy_1", 0, 3.1), *finals, row("final", "squentropy_1", 1, 3.2))
    assert results.finals("text")["squentropy_1"]["test/nll"].tolist() == [3.2, 3.1]


def test_an_arm_with_a_final_run_that_diverged_has_no_contrast(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    finals = [
        row("final", "squentropy_1", seed, 3.1, state=state) for seed, state in ((1, "diverged"), (2, "finished"))
    ]
    better = [row("final", "squentropy_0.1", seed, 2.9 + seed / 100) for seed in (1, 2)]
    tuned = [row("tuning", arm, 0, 3.1) for arm in ("squentropy_1", "squentropy_0.1")]
    write(*BASE, *tuned, *finals, *better)
    assert results.diverged("text") == ["squentropy_1"]
    (contrast,) = tables.of_part.__wrapped__("text")
    assert contrast.arm == "squentropy_0.1"
    assert contrast.corrected_p == pytest.approx(5 * contrast.difference.p_value)  # as planned
    monkeypatch.setattr(tables, "of_part", tables.of_part.__wrapped__)
    for table in (tables.scores, tables.overview, tables.secondary, tables.luck):
        (cells,) = (row for row in table("text").cells() if row[0].text.startswith("squentropy_1"))
        assert DASH in {cell.text for cell in cells}
    by_arm = {row[1].text: [cell.text for cell in row] for row in further.effects("a", {"text": "A"}, "text").cells()}
    assert by_arm["squentropy_1"][4:6] == [DASH, DASH]
    assert by_arm["squentropy_0.1"][4].startswith(MINUS)


def test_missing_seeds_and_another_program_are_refused(write: Any) -> None:
    write(*BASE, row("tuning", "squentropy_1", 0, 3.1), row("final", "squentropy_1", 1, 3.1))
    with pytest.raises(ValueError, match="text: the arms lack final runs"):
        results.finals("text")
    write(
        *BASE, row("tuning", "squentropy_1", 0, 3.1), *(row("final", "squentropy_1", s, 3.1, lr=0.02) for s in (1, 2))
    )
    with pytest.raises(ValueError, match="text: the arms lack final runs"):
        results.finals("text")
    other = [row("final", "squentropy_1", seed, 3.1, program="b") for seed in (1, 2)]
    write(*BASE, row("tuning", "squentropy_1", 0, 3.1), *other)
    with pytest.raises(ValueError, match="2 versions of the program"):
        results.finals("text")


def test_a_part_replaces_only_its_own_rows(write: Any) -> None:
    write(*BASE)
    results.replace("small", pd.DataFrame([row("final", "cross_entropy", 1, 4.0, part="small")]), {"tokens": TOKENS})
    write(*BASE)
    assert results.runs()["part"].value_counts().to_dict() == {"text": 3, "small": 1}
    with np.load(results.FOLDER / "stories.npz") as arrays:
        assert "small/tokens" in arrays
        assert "text/final-cross_entropy-0.01-1-finished" in arrays


def test_a_change_is_the_difference_of_differences(write: Any) -> None:
    rows = [row("tuning", "squentropy_1", 0, 3.1), *(row("final", "squentropy_1", s, 3.1) for s in (1, 2))]
    write(*BASE, *rows)
    smaller = [
        each | {"part": "small", "test/nll": each["test/nll"] + 0.2 * ("sq" in each["arm"])} for each in [*BASE, *rows]
    ]
    arrays = {each["run_id"]: each["test/nll"] * TOKENS for each in smaller if each["role"] == "final"}
    results.replace("small", pd.DataFrame(smaller), arrays | {"tokens": TOKENS, "bytes": 4 * TOKENS})
    assert further.effect("small", "squentropy_1").effect == pytest.approx(0.3)
    expected = 0.3 - 0.1 * 62 / 60
    assert further.change("small", "text", "squentropy_1").effect == pytest.approx(expected)
    assert further.change("text", "small", "squentropy_1").effect == pytest.approx(-expected)
    trends = [
        further.trend(*parts, "squentropy_1") for parts in (("text", "small"), ("small", "text"), ("text", "text"))
    ]
    assert trends == ["grows", "shrinks", "does not clearly change"]
    results.replace(
        "small", pd.DataFrame(smaller).assign(program="b"), arrays | {"tokens": TOKENS, "bytes": 4 * TOKENS}
    )
    with pytest.raises(ValueError, match="small and text were trained by different versions of the program"):
        further.change("small", "text", "squentropy_1")


@pytest.mark.parametrize(("best", "is_at_edge"), [(0.01, True), (0.02, False), (0.04, True)])
def test_a_best_learning_rate_at_the_edge_is_named(best: float, is_at_edge: bool, write: Any) -> None:
    finals = [row("final", "cross_entropy", seed, 3.0, lr=best) for seed in (1, 2)]
    write(*(row("tuning", "cross_entropy", 0, 3.0 if lr == best else 3.1, lr=lr) for lr in (0.01, 0.02, 0.04)), *finals)
    assert results.at_edge("text") == ({"cross_entropy": best} if is_at_edge else {})
    assert page.edges({"text": "A"}).endswith(": `cross_entropy` (A).") == is_at_edge
    assert bool(page.edges({"text": "A"})) == is_at_edge


def test_shares_of_the_difference_and_of_the_time(write: Any, tmp_path: Path) -> None:
    rows = [row("tuning", "squentropy_1", 0, 3.3), *(row("final", "squentropy_1", seed, 3.3) for seed in (1, 2))]
    write(*BASE, *rows)
    assert tables.slower("text", "squentropy_1") == pytest.approx(0.1)  # here, the seconds are the nll
    models = pd.DataFrame([{"run_id": each["run_id"], "arm": each["arm"]} for each in (*BASE[1:], *rows[1:])])
    is_base = models["arm"] == "cross_entropy"
    scores = {"nll": is_base.map({True: 3.0, False: 3.4}), "nll_power": is_base.map({True: 2.9, False: 3.2})}
    models.assign(**scores, wrong_variance=0.25).to_csv(tmp_path / "logits.csv")
    pd.DataFrame([{"run_id": rows[1]["run_id"], "arm": "squentropy_1", "bias": 0.1}]).to_csv(tmp_path / "bias.csv")
    assert exploratory.removed("squentropy_1", "nll_power") == pytest.approx(1 - 0.3 / 0.4)
    assert exploratory.share_of_cost("squentropy_1") == pytest.approx(0.1 / 0.4)
    assert exploratory.spread("squentropy_1") == 0.5


def test_numbers_of_other_models_are_refused(write: Any, tmp_path: Path) -> None:
    write(*BASE)
    models = pd.DataFrame({"run_id": [each["run_id"] for each in BASE[1:]]})
    models.to_csv(tmp_path / "logits.csv")
    assert len(exploratory.models()) == 2
    models.replace(BASE[1]["run_id"], "other").to_csv(tmp_path / "logits.csv")
    with pytest.raises(ValueError, match=r"logits\.csv is from other models"):
        exploratory.models()

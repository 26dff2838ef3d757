import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from analysis import axes, runs
from analysis.figures import Figure
from analysis.page import Section, Text
from analysis.report import curves
from tests.analysis import fake
from tests.analysis.store import add_run

SHAPE = {"train__accumulate": 40, "train__batch_size": 4, "model__block_size": 1024}


def points(metric: str, values: dict[int, float]) -> list[tuple[int, str, float]]:
    return [(step, metric, value) for step, value in values.items()]


def trained(loss: str = "squentropy", seed: int = 1, offset: float = 0.0, **others: object) -> runs.RecordedRun:
    train = {step: 2.0 + offset + 1 / step for step in range(10, 101, 10)}
    val = {50: 2.5 + offset, 100: 2.1 + offset}
    each = [(f"{split}/{key}", by) for split, by in (("train", train), ("val", val)) for key in ("loss", "nll")]
    all_points = [point for metric, by in each for point in points(metric, by)]
    return fake.run(loss, seed=seed, points=all_points, **{**SHAPE, **others})


def setting(*each: runs.RecordedRun, others: Counter[str] | None = None) -> runs.RecordedSetting:
    return runs.RecordedSetting(each[0].loss, each[0].setting, list(each), others or Counter())


def figure_names(made: Section) -> list[str]:
    return [block.name for block in made.blocks if isinstance(block, Figure)]


def notes(made: Section) -> str:
    return "\n".join(block.text for block in made.blocks if isinstance(block, Text) and block.kind == "note")


def test_an_iteration_of_the_report_is_163840_tokens() -> None:
    run = fake.run(points=points("val/nll", {1: 10.0, 50: 5.0}), **SHAPE)
    x, y = axes.line(run, "val/nll", "tokens")
    assert (x.tolist(), y.tolist()) == ([163_840, 8_192_000], [10.0, 5.0])


def test_seconds_are_the_sum_of_tokens_over_their_rate() -> None:
    """What a run adds up itself, between logged steps in proportion, and nothing beyond the last of them."""
    rates = {10: 1000.0, 20: 4000.0, 40: 2000.0}
    seconds, total, last = {}, 0.0, 0
    for step, rate in rates.items():
        total += (step - last) * 100 / rate
        seconds[step], last = total, step
    logged = [*points("train/seconds", seconds), *points("train/tokens_per_second", rates)]
    run = fake.run(points=[*logged, *points("val/nll", {5: 3.0, 10: 2.0, 30: 1.5, 40: 1.0, 60: 0.5})])
    x, y = axes.line(run, "val/nll", "seconds")
    assert x == pytest.approx([0.5, 1.0, (1.25 + 2.25) / 2, 2.25])
    assert y.tolist() == [3.0, 2.0, 1.5, 1.0]


def test_values_that_are_not_finite_are_not_drawn() -> None:
    run = fake.run(points=points("val/nll", {1: 3.0, 2: float("nan"), 3: float("inf"), 4: 2.0}))
    assert axes.line(run, "val/nll")[0].tolist() == [1, 4]


def test_mean_and_range_of_seeds_logged_at_other_steps() -> None:
    first = np.array([10.0, 20.0, 30.0]), np.array([4.0, 2.0, 1.0])
    second = np.array([5.0, 15.0, 25.0, 35.0]), np.array([6.0, 4.0, 3.0, 2.0])
    x, mean, least, greatest = axes.mean_and_range([first, second])
    assert x.tolist() == [10, 20, 30]
    assert mean.tolist() == [(4 + 5) / 2, (2 + 3.5) / 2, (1 + 2.5) / 2]
    assert (least.tolist(), greatest.tolist()) == ([4, 2, 1], [5, 3.5, 2.5])


def test_the_mean_ends_where_the_first_of_the_seeds_does() -> None:
    full = np.arange(1.0, 11), np.ones(10)
    short = np.arange(1.0, 5), np.full(4, 3.0)
    x, mean, *_ = axes.mean_and_range([full, short])
    assert (x.tolist(), mean.tolist()) == ([1, 2, 3, 4], [2, 2, 2, 2])
    apart = np.arange(20.0, 25), np.ones(5)
    assert len(axes.mean_and_range([full, apart])[0]) == 0


@pytest.mark.parametrize("n", [1, 300, 301, 302, 999, 100_000])
def test_thinned_keeps_ends_and_spikes(n: int) -> None:
    y = np.random.default_rng(n).normal(size=n)
    y[n // 3], y[n // 2] = 50, -50
    kept = axes.thinned(y)
    assert len(kept) <= 300
    assert (kept[0], kept[-1]) == (0, n - 1)
    assert (np.diff(kept) > 0).all()
    assert {n // 3, n // 2} <= {*kept.tolist()}
    if n <= 300:
        assert len(kept) == n


def test_a_figure_for_each_loss_and_one_of_all() -> None:
    chosen = {
        "cross_entropy": setting(trained("cross_entropy", 1), trained("cross_entropy", 2, 0.1)),
        "squentropy": setting(trained(), others=Counter(diverged=2)),
    }
    made = curves.section(chosen)
    assert figure_names(made) == ["curves_nll", "objective_cross_entropy", "objective_squentropy"]
    captions = {block.name: block.caption for block in made.blocks if isinstance(block, Figure)}
    assert "nats per token: 2 seeds" in captions["objective_cross_entropy"]
    assert "in its own unit: one seed" in captions["objective_squentropy"]
    assert "squentropy: further seeds have no result and are left out (2 diverged)" in notes(made)


def drawn(monkeypatch: pytest.MonkeyPatch, *args: object, **others: object) -> dict[str, list]:
    """What is on each panel: label, x, y of the lines that have a label, by the figure and the panel's title."""
    seen: dict[str, list] = {}
    finish = curves.figures.finish

    def spy(drawing, name: str, caption: str) -> Figure:
        for panel in drawing.axes:
            labelled = [each for each in panel.lines if not each.get_label().startswith("_")]
            seen[f"{name} {panel.get_title(loc='left')}"] = [(each.get_label(), *each.get_data()) for each in labelled]
        return finish(drawing, name, caption)

    monkeypatch.setattr(curves.figures, "finish", spy)
    curves.section(*args, **others)
    return seen


def test_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is labelled training, and validation validation: the report swapped them."""
    chosen = {"squentropy": setting(trained(seed=1), trained(seed=2, offset=0.2))}
    seen = drawn(monkeypatch, chosen, against="tokens")
    (label, x, y), training = seen["objective_squentropy squentropy"]
    assert (label, training[0]) == ("Validation", "Training")
    assert x == pytest.approx([50 * 163_840, 100 * 163_840])
    assert y == pytest.approx([2.6, 2.2])
    assert training[2] == pytest.approx([2.1 + 1 / step for step in range(10, 101, 10)])
    assert seen["curves_nll Validation"][0][2] == pytest.approx([2.6, 2.2])
    assert seen["curves_nll Training"][0][2] == pytest.approx(training[2])


def test_runs_without_curves_are_named() -> None:
    nothing = fake.run("brier", status="RUNNING")
    made = curves.section({"squentropy": setting(trained()), "brier": setting(nothing)})
    assert figure_names(made) == ["curves_nll", "objective_squentropy"]
    assert f"brier: run {nothing.id[:8]} (running) has no curve" in notes(made)
    assert figure_names(curves.section({"brier": setting(nothing)})) == []


def test_seconds_of_a_run_that_has_none() -> None:
    made = curves.section({"squentropy": setting(trained())}, against="seconds")
    assert figure_names(made) == []
    assert "nothing to count seconds by: --against steps" in notes(made)
    without = fake.run(points=points("val/loss", {1: 1.0}))
    assert "nothing to count tokens by" in notes(curves.section({"squentropy": setting(without)}, against="tokens"))


def test_nothing_at_all() -> None:
    made = curves.section({})
    assert [type(block) for block in made.blocks] == [Text]
    assert "python run.py -m loss=cross_entropy,squentropy" in made.blocks[0].text
    with pytest.raises(ValueError, match="against steps, tokens, seconds, not 'days'"):
        curves.section({}, against="days")


def test_given_runs_are_averaged_over_seeds_alone() -> None:
    found = [
        trained(seed=1, optimizer__lr=0.1),
        trained(seed=2, optimizer__lr=0.1),
        trained(seed=1, optimizer__lr=0.2, status="KILLED"),
        trained("cross_entropy"),
    ]
    chosen = curves.picked(found, [*(run.id for run in found), found[0].name])
    assert {label: len(each.runs) for label, each in chosen.items()} == {
        "squentropy lr=0.1": 2,
        "squentropy lr=0.2": 1,
        "cross_entropy": 1,
    }
    assert f"squentropy lr=0.2: run {found[2].id[:8]} is drawn as far as it went (killed)" in notes(
        curves.section(chosen)
    )


def test_different_text_is_not_compared_in_silence() -> None:
    found = [trained(), trained(tags={"text": "other"})]
    chosen = curves.picked(found, [run.id for run in found])
    assert len(chosen) == 2
    assert "different text" in notes(curves.section(chosen))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    add_run(folder, "squentropy", 1)
    add_run(folder, "squentropy", 2, status="RUNNING")
    return folder


def main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["analysis.report.curves", *map(str, arguments)])
    return curves.main()


def test_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--out", tmp_path / "out")
    assert main(monkeypatch, *store, "--against", "seconds") == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    assert {path.name for path in printed} == {
        f"{name}.{end}" for name in ("curves_nll", "objective_squentropy") for end in ("png", "svg")
    }
    assert all(path.stat().st_size > 1000 for path in printed)
    running = next(run for run in runs.load(store[1]) if run.state == "running")  # whose curve only the server has
    assert main(monkeypatch, running.id[:10], *store) == 0
    assert f"{running.id[:8]} is drawn as far as it went (running)" in capsys.readouterr().out
    assert main(monkeypatch, "nosuch", *store) == 2
    assert capsys.readouterr().err.startswith("error: there is no run 'nosuch'")
    assert main(monkeypatch, "--tracking-uri", f"sqlite:///{tmp_path}/none.db", "--out", tmp_path) == 0
    assert "No run has finished" in capsys.readouterr().out

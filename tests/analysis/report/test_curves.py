from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import lines
from analysis.figures import Figure
from analysis.page import Text
from analysis.recorded_run import RecordedRun
from analysis.report import curves
from analysis.runs import RecordedSetting
from tests.analysis.blocks import figure_names, texts
from tests.analysis.conftest import MLflowStore
from tests.analysis.recorded import complete_run, run

SHAPE = {"train__accumulate": 40, "train__batch_size": 4, "model__block_size": 1024}


def points(metric: str, values: dict[int, float]) -> list[tuple[int, str, float]]:
    return [(step, metric, value) for step, value in values.items()]


def trained(loss: str = "squentropy", seed: int = 1, offset: float = 0.0, **others: object) -> RecordedRun:
    train = {step: 2.0 + offset + 1 / step for step in range(10, 101, 10)}
    val = {50: 2.5 + offset, 100: 2.1 + offset}
    metrics = [(f"{split}/{key}", by) for split, by in (("train", train), ("val", val)) for key in ("loss", "nll")]
    all_points = [point for metric, by in metrics for point in points(metric, by)]
    return run(loss, seed, points=all_points, **{**SHAPE, **others})


def setting(*seeds: RecordedRun, left_out: dict[int, str] | None = None) -> RecordedSetting:
    return RecordedSetting(seeds[0].loss, seeds[0].setting, list(seeds), left_out or {})


def test_an_iteration_of_the_student_report_has_163840_tokens() -> None:
    recorded = run(points=points("val/nll", {1: 10.0, 50: 5.0}), **SHAPE)
    x, y = lines.line(recorded, "val/nll", "tokens")
    assert (x.tolist(), y.tolist()) == ([163_840, 8_192_000], [10.0, 5.0])


def test_seconds_are_those_of_the_run_interpolated_between_logged_steps() -> None:
    rates = {10: 1000.0, 20: 4000.0, 40: 2000.0}
    seconds, total, last = {}, 0.0, 0
    for step, rate in rates.items():
        total += (step - last) * 100 / rate
        seconds[step], last = total, step
    logged = [*points("train/seconds", seconds), *points("train/tokens_per_second", rates)]
    recorded = run(points=[*logged, *points("val/nll", {5: 3.0, 10: 2.0, 30: 1.5, 40: 1.0, 60: 0.5})])
    x, y = lines.line(recorded, "val/nll", "seconds")
    assert x == pytest.approx([0.5, 1.0, (1.25 + 2.25) / 2, 2.25])
    assert y.tolist() == [3.0, 2.0, 1.5, 1.0]


def test_values_that_are_not_finite_are_not_drawn() -> None:
    recorded = run(points=points("val/nll", {1: 3.0, 2: float("nan"), 3: float("inf"), 4: 2.0}))
    assert lines.line(recorded, "val/nll")[0].tolist() == [1, 4]


def test_mean_and_range_of_seeds_with_different_steps() -> None:
    first = np.array([10.0, 20.0, 30.0]), np.array([4.0, 2.0, 1.0])
    second = np.array([5.0, 15.0, 25.0, 35.0]), np.array([6.0, 4.0, 3.0, 2.0])
    x, mean, low, high = lines.mean_and_range([first, second])
    assert x.tolist() == [10, 20, 30]
    assert mean.tolist() == [(4 + 5) / 2, (2 + 3.5) / 2, (1 + 2.5) / 2]
    assert (low.tolist(), high.tolist()) == ([4, 2, 1], [5, 3.5, 2.5])


def test_the_mean_ends_with_the_shortest_seed() -> None:
    full = np.arange(1.0, 11), np.ones(10)
    short = np.arange(1.0, 5), np.full(4, 3.0)
    x, mean, *_ = lines.mean_and_range([full, short])
    assert (x.tolist(), mean.tolist()) == ([1, 2, 3, 4], [2, 2, 2, 2])
    apart = np.arange(20.0, 25), np.ones(5)
    assert len(lines.mean_and_range([full, apart])[0]) == 0


@pytest.mark.parametrize("n", [1, 300, 301, 302, 999, 100_000])
def test_thinning_keeps_ends_and_spikes(n: int) -> None:
    y = np.random.default_rng(n).normal(size=n)
    y[n // 3], y[n // 2] = 50, -50
    kept = lines.thinned(y)
    assert len(kept) <= 300
    assert (kept[0], kept[-1]) == (0, n - 1)
    assert (np.diff(kept) > 0).all()
    assert {n // 3, n // 2} <= {*kept.tolist()}
    if n <= 300:
        assert len(kept) == n


def test_there_is_a_figure_for_each_loss_and_one_of_all_losses() -> None:
    best = {
        "cross_entropy": setting(trained("cross_entropy", 1), trained("cross_entropy", 2, 0.1)),
        "squentropy": setting(trained(), left_out={2: "diverged", 3: "diverged"}),
    }
    section = curves.section(best)
    assert figure_names(section) == ["curves_nll", "objective_cross_entropy", "objective_squentropy"]
    captions = {block.name: block.caption for block in section.blocks if isinstance(block, Figure)}
    assert "nats per token: 2 seeds" in captions["objective_cross_entropy"]
    assert "in its own unit: one seed" in captions["objective_squentropy"]
    assert "Left out: seeds 2, 3 of squentropy (diverged)." in texts(section, "note")


def labeled_lines(panel: Any) -> dict[str, tuple]:
    """Return x and y of the lines of a panel that have a label."""
    return {line.get_label(): line.get_data() for line in panel.lines if not line.get_label().startswith("_")}


def test_training_and_validation_have_their_own_labels(drawings: dict[str, Any]) -> None:
    """The student report swapped them."""
    curves.section({"squentropy": setting(trained(seed=1), trained(seed=2, offset=0.2))}, against="tokens")
    lines = labeled_lines(drawings["objective_squentropy"].axes[0])
    assert list(lines) == ["Validation", "Training"]
    x, y = lines["Validation"]
    assert x == pytest.approx([50 * 163_840, 100 * 163_840])
    assert y == pytest.approx([2.6, 2.2])
    training = [2.1 + 1 / step for step in range(10, 101, 10)]
    assert lines["Training"][1] == pytest.approx(training)
    by_title = {panel.get_title(loc="left"): labeled_lines(panel) for panel in drawings["curves_nll"].axes}
    assert by_title["Validation"]["squentropy"][1] == pytest.approx([2.6, 2.2])
    assert by_title["Training"]["squentropy"][1] == pytest.approx(training)


def test_a_single_point_of_validation_is_visible_and_named(drawings: dict[str, Any]) -> None:
    single = run(points=[*points("train/nll", {10: 3.0, 20: 2.0}), *points("val/nll", {20: 2.1})])
    section = curves.section({"squentropy": setting(single), "focal": setting(trained("focal"))})
    (figure,) = [block for block in section.blocks if isinstance(block, Figure) and block.name == "curves_nll"]
    assert "One point, not a curve: Validation of squentropy (more with train.eval_every, " in figure.caption
    panel = drawings["curves_nll"].axes[0]
    sizes = {line.get_label(): line.get_markersize() for line in panel.lines}
    assert sizes["squentropy"] == 2 * sizes["focal"]
    assert {text.get_text() for text in panel.texts} == {"squentropy", "focal"}  # beside their ends


def test_runs_without_curves_are_named() -> None:
    nothing = run("brier", status="RUNNING")
    section = curves.section({"squentropy": setting(trained()), "brier": setting(nothing)})
    assert figure_names(section) == ["curves_nll", "objective_squentropy"]
    assert f"brier: run {nothing.id[:8]} (running) has no curve" in texts(section, "note")
    assert figure_names(curves.section({"brier": setting(nothing)})) == []


def test_runs_without_seconds_or_tokens_are_named() -> None:
    section = curves.section({"squentropy": setting(trained())}, against="seconds")
    assert figure_names(section) == []
    assert "has no seconds: use --against steps" in texts(section, "note")
    without = curves.section({"squentropy": setting(run(points=points("val/loss", {1: 1.0})))}, against="tokens")
    assert "has no tokens: use --against steps" in texts(without, "note")


def test_without_runs_there_is_a_sentence() -> None:
    section = curves.section({})
    assert [type(block) for block in section.blocks] == [Text]
    assert "python run.py -m loss=cross_entropy,squentropy" in texts(section)


def test_chosen_runs_are_grouped_by_setting() -> None:
    recorded = [
        trained(seed=1, optimizer__lr=0.1),
        trained(seed=2, optimizer__lr=0.1),
        trained(seed=1, optimizer__lr=0.2, status="KILLED"),
        trained("cross_entropy"),
    ]
    settings = curves.settings_of(recorded, [*(run.id for run in recorded), recorded[0].name])
    assert {label: len(setting.runs) for label, setting in settings.items()} == {
        "squentropy lr=0.1": 2,
        "squentropy lr=0.2": 1,
        "cross_entropy": 1,
    }
    note = f"squentropy lr=0.2: run {recorded[2].id[:8]} (killed) is shown up to its last step"
    assert note in texts(curves.section(settings), "note")


def test_runs_on_different_text_have_a_note() -> None:
    recorded = [trained(), trained(tags={"text": "other"})]
    settings = curves.settings_of(recorded, [run.id for run in recorded])
    assert list(settings) == ["squentropy", "squentropy (other text)"]
    assert "different text" in texts(curves.section(settings), "note")


def test_command(store: MLflowStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, running = store.write("curves", [complete_run(seed=1), complete_run(seed=2, status="RUNNING")])
    options = ["--tracking-uri", store.uri, "--experiment", "curves", "--out", str(tmp_path / "out")]
    assert curves.main([*options, "--against", "seconds"]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    names = ("curves_nll", "objective_squentropy")
    assert {path.name for path in printed} == {f"{name}.{ending}" for name in names for ending in ("png", "svg")}
    assert all(path.stat().st_size > 1000 for path in printed)
    assert curves.main([running[:10], *options]) == 0
    assert f"{running[:8]} (running) is shown up to its last step" in " ".join(capsys.readouterr().out.split())
    assert curves.main(["nosuch", *options]) == 2
    assert capsys.readouterr().err.startswith("error: there is no run 'nosuch'")
    assert curves.main(["--tracking-uri", f"sqlite:///{tmp_path}/none.db", "--out", str(tmp_path)]) == 0
    assert "No run has finished" in capsys.readouterr().out

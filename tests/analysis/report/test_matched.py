"""Comparisons of like with like, and the best setting of each loss."""

import pytest

from analysis.recorded_run import RecordedRun
from analysis.report import matched
from analysis.report.matched import Matched, best_of_each_loss
from analysis.runs import RecordedSetting, settings
from tests.analysis.recorded import DIFFICULTY, run, story_run, story_setting
from tests.analysis.report.chosen import compared


def trained(loss: str, *seeds: int, shift: float = 0.0, **options: object) -> list[RecordedRun]:
    return [story_run(loss, seed, DIFFICULTY + shift + 0.01 * seed, **options) for seed in seeds]  # type: ignore[arg-type]


def found(*groups: list[RecordedRun]) -> dict[str, list[str]]:
    """Return the labels of the contenders of every comparison of runs, by component."""
    return {each.what: [*each.settings] for each in matched.find([run for group in groups for run in group])}


def test_losses_are_compared_only_with_everything_else_equal() -> None:
    base = trained("cross_entropy", 1, 2, optimizer__lr=0.1, model__n_layer=2)
    other_weights = trained("squentropy", 1, loss__weight=1, optimizer__lr=0.1, model__n_layer=2)
    other_weights += trained("squentropy", 1, loss__weight=2, optimizer__lr="1e-1", model__n_layer=2)
    labels = ["cross_entropy", "squentropy weight=1", "squentropy weight=2"]
    assert found(base, other_weights) == {"loss": labels}
    for differing in ({"optimizer__lr": 0.2}, {"model__n_layer": 3}, {"data__source__n_train": 9}):
        options = {"optimizer__lr": 0.1, "model__n_layer": 2, **differing}
        assert found(base, trained("squentropy", 1, 2, **options)) == {}
    for tags in ({"text": "other"}, {"code": "other"}, {"parent": "a checkpoint"}):
        assert found(base, trained("squentropy", 1, optimizer__lr=0.1, model__n_layer=2, tags=tags)) == {}


def test_other_components_are_compared_if_two_of_them_were_run() -> None:
    adamw = trained("cross_entropy", 1, optimizer="torch.optim.AdamW", optimizer__lr=0.1, schedule="cosine")
    grid = trained("cross_entropy", 1, optimizer="torch.optim.AdamW", optimizer__lr=0.2, schedule="cosine")
    assert found(adamw, grid) == {}  # a grid of learning rates
    muon = trained("cross_entropy", 1, optimizer="Muon", optimizer__lr=0.01, optimizer__momentum=0.9, schedule="cosine")
    assert found(adamw, grid, muon) == {"optimizer": ["AdamW lr=0.1", "AdamW lr=0.2", "Muon"]}
    constant = trained("cross_entropy", 1, optimizer="Muon", optimizer__lr=0.01, optimizer__momentum=0.9)
    constant[0].params["schedule"] = "constant"
    assert found(muon, constant) == {"schedule": ["cosine", "constant"]}


def test_of_many_contenders_the_best_of_each_component_is_compared() -> None:
    many = [run for i in range(9) for run in trained("squentropy", 1, 2, shift=abs(i - 4) / 9, loss__weight=i)]
    assert found(trained("cross_entropy", 1, 2), many) == {"loss": ["cross_entropy", "squentropy"]}
    assert found(many) == {}
    (only,) = matched.find([*trained("cross_entropy", 1, 2), *many])
    assert only.settings["squentropy"].params["loss.weight"] == "4"
    assert only.tried == {"cross_entropy": 1, "squentropy": 9}


def test_settings_without_test_scores_are_no_contenders() -> None:
    tuned = run("squentropy", 1, metrics={"val/nll": 0.0})
    assert found(trained("cross_entropy", 1), [tuned]) == {}


def test_an_older_version_of_the_program_keeps_its_comparison() -> None:
    older = [run for loss in ("cross_entropy", "squentropy") for run in trained(loss, 1, 2, tags={"code": "old"})]
    newer = trained("squentropy", 1, 2)
    (before,) = matched.find(older)
    (after,) = matched.find([*older, *newer])
    assert (after.name, after.runs) == (before.name, before.runs)
    assert after.tried == {"cross_entropy": 1, "squentropy": 1}


def best_squentropy(*groups: list[RecordedRun]) -> RecordedSetting:
    best = best_of_each_loss([run for group in groups for run in group], "t")
    assert best is not None
    return best.settings["squentropy"]


def test_the_best_setting_of_each_loss_is_one_with_most_seeds() -> None:
    repeated = trained("squentropy", 1, 2, 3, optimizer__lr=0.01)
    lucky = trained("squentropy", 1, shift=-0.2, optimizer__lr=0.1)
    assert best_squentropy(repeated, lucky).params["optimizer.lr"] == "0.01"
    assert best_squentropy(lucky).params["optimizer.lr"] == "0.1"
    assert best_of_each_loss(lucky, "other") is None


def test_a_setting_that_diverged_is_best_only_without_another() -> None:
    spoiled = [*trained("squentropy", 1, 2, shift=-0.2), run("squentropy", 4, tags={"diverged": "true"})]
    assert best_squentropy(spoiled, trained("squentropy", 1, 2, optimizer__lr=0.1)).params["optimizer.lr"] == "0.1"
    assert best_squentropy(spoiled).left_out == {4: "diverged"}


@pytest.fixture(scope="module")
def four() -> Matched:
    shifts = {"brier": 0.5, "cross_entropy": 0.2, "focal": 0.0, "poly1": 0.0005}
    return compared({loss: story_setting(loss, shift=shift) for loss, shift in shifts.items()})


def test_the_headline_of_many_contenders(four: Matched) -> None:
    text = four.headline()
    assert text.startswith("poly1 has the lowest test nll of the 4, ")
    interval = "the 95 % confidence interval of each difference does not include 0 (3 seeds)"
    assert text.endswith(f"It is better than cross_entropy and brier: {interval}. No difference from focal was found.")
    assert four.order == ["cross_entropy", "brier", "focal", "poly1"]
    assert four.title == "Which loss is better?"


def test_the_headline_says_what_is_missing(four: Matched) -> None:
    alone = compared({"focal": four.settings["focal"]})
    assert alone.headline().startswith(
        "A verdict needs two contenders, and only focal has runs with test scores on this text. Train"
    )
    rows = {**four.settings, "z_loss": story_setting("z_loss", (9,), shift=0.9)}
    rows["mse"] = story_setting("mse", shift=0.9, model__n_layer=9)
    text = compared(rows).headline()
    assert "There are not enough runs to compare poly1 with z_loss." in text
    assert text.endswith("More differs from mse, so this does not show which is better.")
    lucky = settings([story_run("poly1", seed, DIFFICULTY - 3 * (seed == 9)) for seed in (1, 2, 9)])[0]
    text = compared(
        {"poly1": lucky, "brier": four.settings["brier"], "mse": story_setting("mse", shift=-0.5)}
    ).headline()
    assert text.startswith("poly1 has the lowest test nll of the 3, ")
    assert (
        "It is better than brier: the 95 % confidence interval of each difference does not include 0 (2 seeds)." in text
    )
    assert text.endswith("On their common seeds, mse did better than poly1.")
    other = compared({"focal": four.settings["focal"], "mse": story_setting("mse", tags={"text": "other"})})
    assert "were scored on different text" in other.headline()

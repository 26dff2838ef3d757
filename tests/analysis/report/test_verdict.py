import pytest

from analysis.report.bootstrap import Difference
from analysis.report.verdict import decimals, verdict
from analysis.runs import settings
from tests.analysis.recorded import DIFFICULTY, N_STORIES, story_run, story_setting


@pytest.mark.parametrize(
    ("shift", "better", "more", "percent"), [(0.25, "cross_entropy", "higher", 29), (-0.25, "squentropy", "lower", 22)]
)
def test_one_is_better(shift: float, better: str, more: str, percent: int) -> None:
    result = verdict(story_setting("cross_entropy", shift=0.25), story_setting("squentropy", shift=0.25 + shift))
    assert result.difference is not None
    assert result.difference.effect == pytest.approx(shift, abs=0.01)
    assert result.better == better
    bounds = sorted(abs(bound) for bound in (result.difference.low, result.difference.high))
    low, high = (f"{bound:.{decimals(result.difference)}f}" for bound in bounds)
    assert result.text.startswith(f"{better} is better: the test nll of squentropy is 0.2")
    assert f" nats per token {more} than that of cross_entropy (95 % confidence interval {low} to {high}" in result.text
    assert "; 3 seeds, 30 stories). That is 0.0" in result.text
    assert result.text.endswith(f" bits per byte, and a perplexity that is {percent} % {more}.")


def test_no_difference() -> None:
    result = verdict(story_setting("cross_entropy"), story_setting("squentropy", shift=0.0005))
    assert result.better == ""
    assert result.has_enough_seeds
    assert "No difference was found, because the confidence interval includes 0: " in result.text


def test_bits_per_byte_are_those_of_the_runs() -> None:
    a, b = story_setting("cross_entropy"), story_setting("squentropy", shift=0.25)
    result = verdict(a, b)
    assert result.difference is not None
    of_runs = b.mean("test/bits_per_byte") - a.mean("test/bits_per_byte")
    assert result.difference.effect * result.bits_per_nat == pytest.approx(of_runs)
    assert result.difference.effect == pytest.approx(b.mean("test/nll") - a.mean("test/nll"))


def test_only_common_seeds_are_paired() -> None:
    a = settings([story_run("cross_entropy", seed, DIFFICULTY + seed) for seed in (3, 1, 2)])[0]
    b = settings([story_run("squentropy", seed, DIFFICULTY + seed + 0.5) for seed in (9, 3, 2)])[0]
    result = verdict(a, b)
    assert result.seeds == [2, 3]
    assert result.difference is not None
    assert (result.difference.effect, result.difference.n_seeds) == (pytest.approx(0.5), 2)


@pytest.mark.parametrize(("seeds", "common"), [((2, 7), "one seed in common (2)"), ((7, 8), "no seed in common")])
def test_not_enough_seeds(seeds: tuple[int, ...], common: str) -> None:
    result = verdict(story_setting("cross_entropy", (1, 2)), story_setting("squentropy", seeds, shift=0.25))
    assert result.text.startswith(f"Not enough runs: cross_entropy and squentropy have {common}")
    assert not result.has_enough_seeds
    assert result.better == ""
    assert "the test nll of squentropy is 0.2" in result.text
    assert result.text.endswith("covers the choice of stories only; other seeds may give another result.")
    assert result.difference is not None
    assert result.difference.n_seeds == 1


def test_where_more_differs_no_loss_is_called_better() -> None:
    a = story_setting("cross_entropy", metrics={"train/tokens": 1e6}, optimizer__lr=0.1, model__n_layer=2)
    options = {"loss__weight": 1, "device": "cuda", "optimizer__lr": 0.2, "model__n_layer": 4}
    b = story_setting("squentropy", shift=0.25, metrics={"train/tokens": 2e6}, **options)
    result = verdict(a, b)
    assert (result.better, result.has_enough_seeds) == ("", True)
    assert result.text.startswith("The runs of squentropy have a test nll that is 0.2")
    assert " nats per token higher than that of cross_entropy (95 % confidence interval 0.2" in result.text
    besides = "model.n_layer, optimizer.lr and the number of training tokens (1,000,000 and 2,000,000)"
    assert result.text.endswith(
        f"; 3 seeds, 30 stories). They also differ in {besides}, so this does not show which loss is better."
    )
    assert "better:" not in result.text
    same = story_setting("focal", metrics={"train/tokens": 1e6}, optimizer__lr=0.1, model__n_layer=2)
    assert verdict(a, same).besides == []
    two_keys = story_setting("cross_entropy", shift=0.25, optimizer__lr=0.2, model__n_layer=4)
    assert verdict(a, two_keys).text.endswith(
        "They differ in model.n_layer and optimizer.lr, so this does not show what causes the difference."
    )


def test_single_runs_in_which_more_differs() -> None:
    a, b = story_setting("cross_entropy", (1,), optimizer__lr=0.1), story_setting("squentropy", (1,), optimizer__lr=0.2)
    text = verdict(a, b).text
    assert text.startswith("Not enough runs: ")
    assert text.endswith("They also differ in optimizer.lr, so this does not show which loss is better.")


def test_two_settings_of_one_loss_that_differ_in_one_component_or_key() -> None:
    a, b = (story_setting("squentropy", shift=shift, loss__weight=shift) for shift in (0.1, 0.5))
    result = verdict(a, b)
    names = ("squentropy weight=0.1", "squentropy weight=0.5")
    assert (result.a, result.b, result.better) == (*names, names[0])
    a, b = (story_setting("squentropy", shift=lr, train__clip_norm=lr) for lr in (0.1, 0.5))
    assert verdict(a, b).better == "train.clip_norm=0.1"
    adamw = story_setting("squentropy", shift=0.2, optimizer="torch.optim.AdamW", optimizer__betas=1)
    result = verdict(adamw, story_setting("squentropy", optimizer="Muon", optimizer__lr=0.5))
    assert (result.a, result.b, result.better) == ("AdamW", "Muon", "Muon")


def test_keys_that_are_compared_or_tuned_for_both_are_no_other_cause() -> None:
    a = story_setting("cross_entropy", optimizer__lr=0.1, optimizer="AdamW", model__n_layer=2)
    b = story_setting("squentropy", shift=0.25, optimizer__lr=0.2, model__n_layer=3)
    compared = ["loss", "optimizer", "model.n_layer"]
    assert verdict(a, b, compared=compared).text.startswith("cross_entropy is better: ")
    assert verdict(a, b, compared=["loss", "optimizer", "model.n"]).besides == ["model.n_layer"]
    tuned = [story_setting(loss, metrics={"train/tokens": 1e6 * i}) for i, loss in enumerate(("focal", "brier"))]
    assert len(verdict(*tuned).besides) == 1
    assert verdict(*tuned, compared=["loss", "train.batch_size"]).besides == []  # other numbers of tokens follow


def test_a_setting_does_not_differ_from_itself() -> None:
    setting = story_setting("squentropy")
    result = verdict(setting, setting, labels=["squentropy", "own"])
    assert result.text.startswith(
        "No difference was found: squentropy and own have equal scores in all 3 seeds and 30 stories."
    )
    assert result.difference is not None
    assert (result.difference.effect, result.difference.low, result.difference.high) == (0, 0, 0)


def test_programs_are_compared_without_the_modules_of_a_user() -> None:
    a, own = story_setting("cross_entropy", tags={"code": "c"}), story_setting("my.loss", tags={"code": "c+d"})
    assert verdict(a, own).besides == []
    newer = verdict(a, story_setting("squentropy", shift=0.25, tags={"code": "e"}))
    assert (newer.besides, newer.better) == (["the version of the program"], "")
    same_setting = verdict(a, story_setting("cross_entropy", tags={"code": "e"}))
    assert (same_setting.a, same_setting.b) == ("cross_entropy A", "cross_entropy B")


def test_scores_on_different_text_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"scored on different text.*\(text t and def\)"):
        verdict(story_setting("cross_entropy"), story_setting("squentropy", tags={"text": "def"}))
    mixed = story_setting("squentropy")
    mixed.runs[1].tags["text"] = "def"  # seeds that were added after a file of the data had changed
    with pytest.raises(ValueError, match=r"scored on different text.*\(text t and def\)"):
        verdict(story_setting("cross_entropy"), mixed)
    half = settings([story_run("squentropy", seed, DIFFICULTY[: N_STORIES // 2]) for seed in (1, 2)])[0]
    with pytest.raises(ValueError, match="scored on different text"):
        verdict(story_setting("cross_entropy"), half)


def test_a_run_without_scores_of_stories_is_left_out() -> None:
    lacking = settings(
        [
            *story_setting("squentropy", shift=0.25).runs,
            story_run("squentropy", 4, DIFFICULTY, artifacts={"stories.csv": None}),
        ]
    )[0]
    result = verdict(story_setting("cross_entropy", (1, 2, 3, 4)), lacking)
    assert result.seeds == [1, 2, 3]
    assert result.notes[-1].startswith("Left out: squentropy ")
    nothing = verdict(story_setting("cross_entropy"), story_setting("squentropy", artifacts={"stories.csv": None}))
    assert nothing.difference is None
    assert nothing.text.startswith("Not enough runs: no run of squentropy has the scores of its stories")


def test_one_story_is_not_enough() -> None:
    a, b = (
        settings([story_run(loss, seed, DIFFICULTY[:1]) for seed in (1, 2)])[0] for loss in ("cross_entropy", "focal")
    )
    assert verdict(a, b).text.startswith("Not enough stories")


@pytest.mark.parametrize(
    ("low", "high", "digits"),
    [(0.373, 0.399, 3), (-0.5, 1.5, 1), (-300.0, 100.0, 0), (0.0002, 0.034, 4), (0.25, 0.25 + 1e-16, 6)],
)
def test_decimals_show_two_digits_and_the_side_of_zero(low: float, high: float, digits: int) -> None:
    assert decimals(Difference((low + high) / 2, low, high, 1.0, 2, 2)) == digits

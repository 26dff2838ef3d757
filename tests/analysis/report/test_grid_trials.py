import itertools

from analysis.report import grid_trials
from tests.analysis.recorded import trial

CORNER = [(1, 0), (1, 1), (2, 0)]  # of a grid of two by two


def test_the_seed_is_no_axis() -> None:
    recorded = [trial(i, 10.0 + i, optimizer__lr=i // 2 + 1, seed=i % 2) for i in range(4)]
    trials = grid_trials.trials(recorded)
    assert [(t.number, t.mean()) for t in trials] == [("0, 1", 10.5), ("2, 3", 12.5)]
    assert grid_trials.axes(trials) == ["optimizer.lr"]


def test_the_last_finished_run_of_a_seed_counts() -> None:
    first, second, third = (trial(0, value, optimizer__lr=1, seed=1) for value in (10.0, 11.0, 12.0))
    third.status = "FAILED"
    (merged,) = grid_trials.trials([third, first, second])
    assert [run.id for run in merged.runs] == [second.id]


def axes_of(*settings: dict[str, str]) -> list[str]:
    return grid_trials.axes([grid_trials.GridTrial(setting, []) for setting in settings])


def test_axes_are_what_varies_independently() -> None:
    losses = [{"loss": "ce"}, {"loss": "sq", "loss.weight": "1.0"}]
    rates = [{"optimizer.lr": "1"}, {"optimizer.lr": "2"}]
    depths = [{"model.n_layer": "1"}, {"model.n_layer": "2"}]
    paired = [{"optimizer.lr": "1", "train.warmup": "5"}, {"optimizer.lr": "2", "train.warmup": "7"}]
    product = itertools.product

    assert axes_of(*losses) == ["loss"]
    assert axes_of(*({**a, **b} for a, b in product(losses, rates))) == ["optimizer.lr", "loss"]
    assert axes_of(*({**a, **b} for a, b in product(depths, paired))) == ["optimizer.lr", "model.n_layer"]
    weights = [{"loss": "ce"}, *({"loss": "sq", "loss.weight": w} for w in "12")]
    assert axes_of(*weights) == ["loss.weight"]
    swapped = [{"optimizer.betas": "b", "optimizer": "adamw"}, {"optimizer": "muon"}]
    assert axes_of(*swapped) == ["optimizer"]
    assert axes_of({"a": "1"}) == []


def test_values_are_in_numeric_order() -> None:
    def values(*settings: str | None) -> list[str | None]:
        return grid_trials.values([grid_trials.GridTrial({"k": v} if v else {}, []) for v in settings], "k")

    assert values("16", "8", "12", "8") == ["8", "12", "16"]
    assert values("6e-06", "0.06", "0.0006") == ["6e-06", "0.0006", "0.06"]
    assert values("b", None, "a", "2") == [None, "2", "a", "b"]


def test_a_failed_run_of_another_sweep_does_not_complete_the_grid() -> None:
    grid = grid_trials.trials(trial(i, 10.0, optimizer__lr=a, model__dropout=b) for i, (a, b) in enumerate(CORNER))
    failed, finished = (trial(0, 5.0, status=s, optimizer__lr=2, model__dropout=1) for s in ("FAILED", "FINISHED"))
    assert grid_trials.missing_trials(grid, [failed]) == []
    (added,) = grid_trials.missing_trials(grid, [failed, finished])
    assert added.runs == [finished]


def test_seeds_of_an_older_program_are_left_out() -> None:
    codes = [(1, "c+old"), (2, "c+old"), (1, "c+new")]
    (merged,) = grid_trials.trials(trial(0, 10.0, seed=seed, tags={"code": code}) for seed, code in codes)
    assert [(run.seed, run.tags["code"]) for run in merged.runs] == [(1, "c+new")]


def test_a_combination_with_a_module_of_a_user_completes_the_grid() -> None:
    grid = grid_trials.trials(trial(i, 10.0, optimizer__lr=a, model__dropout=b) for i, (a, b) in enumerate(CORNER))
    own, older = (trial(0, 5.0, optimizer__lr=2, model__dropout=1, tags={"code": code}) for code in ("c+d", "e+d"))
    assert grid_trials.missing_trials(grid, [older]) == []
    assert len(grid_trials.missing_trials(grid, [own])) == 1

"""The importance of the settings of a search, where it is known."""

from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from analysis.figures import Figure
from analysis.report import importance, search
from tests.analysis.blocks import figure_names, texts
from tests.analysis.report.studies import add, trial
from tests.commandline import command
from tests.sweeps.commandline import FEW


def quadratic(n: int) -> list[FrozenTrial]:
    """The learning rate matters, depth hardly, the optimizer not at all."""
    trials = []
    for i in range(n):
        exponent, n_layer = (i * 37 % n) / n, 1 + i % 4
        value = exponent**2 + 0.01 * n_layer
        trials.append(
            trial([value], lr=10 ** (-4 + 2 * exponent), n_layer=n_layer, optimizer=["adamw", "sgd"][i // 2 % 2])
        )
    return trials


def test_importance(scratch: str) -> None:
    add(scratch, "quadratic", quadratic(40))
    study = search.load(scratch, "quadratic")
    (parts,) = importance.estimate(study).shares
    assert next(iter(parts)) == "optimizer.lr"
    assert min(parts["optimizer.lr"]) > 0.8
    assert all(len(values) == importance.N_FORESTS for values in parts.values())
    for forest in zip(*parts.values(), strict=True):
        assert sum(forest) == pytest.approx(1.0)
    assert importance.estimate(study).shares == [parts]
    assert "fANOVA of 40 complete trials" in importance.figure(study, importance.estimate(study)).caption


def conditional(n: int, *, upwards: bool = False) -> list[FrozenTrial]:
    """Only squentropy has a weight. The weight decides which trials are the best; the learning rate hardly matters."""
    space = {"loss": CategoricalDistribution(["cross_entropy", "squentropy"]), "optimizer.lr": FloatDistribution(0, 1)}
    weight = {"loss.weight": FloatDistribution(0, 1)}
    trials = []
    for i in range(n):
        params = {"loss": ["cross_entropy", "squentropy"][i % 2], "optimizer.lr": (i * 37 % n) / n}
        own = {"loss.weight": (i // 2 * 23 % n) / n} if i % 2 else {}
        value = 0.01 * params["optimizer.lr"] + (abs(own["loss.weight"] - 0.3) if own else 0.5)
        trials.append(
            create_trial(
                value=-value if upwards else value,
                params=params | own,
                distributions=space | (weight if own else {}),
            )
        )
    return trials


@pytest.mark.parametrize("upwards", [False, True])
def test_importance_of_a_setting_that_some_trials_lack(scratch: str, upwards: bool) -> None:
    name, direction = ("highest", "maximize") if upwards else ("lowest", "minimize")
    metric = {"hydra.sweeper.objectives": ["val/accuracy" if upwards else "val/nll"]}
    add(scratch, name, conditional(40, upwards=upwards), [direction], **metric)
    study = search.load(scratch, name)
    result = importance.estimate(study)
    (parts,) = result.shares
    assert next(iter(parts)) == "loss.weight"
    assert parts["loss.weight"][0] > 0.6
    assert parts.keys() == study.space.keys()
    caption = importance.figure(study, result).caption
    assert "Conditional PED-ANOVA of 40 complete trials" in caption
    assert "among the best 5. " in caption
    assert "Trials that have a setting which others lack: loss.weight 20." in caption
    assert "fANOVA" not in caption


def test_importance_for_each_metric(url: str) -> None:
    assert len(importance.estimate(search.load(url, "two")).shares) == 2


@pytest.mark.parametrize(
    ("name", "trials", "why"),
    [
        ("few", quadratic(9), "9 complete trials are too few, it needs 10."),
        ("fewer", conditional(19), "19 complete trials are too few, it needs 20, because not all trials have the same"),
        ("constant", [trial([1.0], lr=1e-4 * (i + 1)) for i in range(12)], "the same value"),
    ],
)
def test_importance_that_cannot_be_estimated(scratch: str, name: str, trials: list[FrozenTrial], why: str) -> None:
    add(scratch, name, trials)
    section = search.section(search.find(scratch, name))
    assert why in texts(section)
    assert "search-importance" not in figure_names(section)


@pytest.mark.slow
def test_a_search_of_the_loss_and_its_weight(tmp_path: Path) -> None:
    sampler = ["hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1", "hydra/sweeper/pruner=none"]
    fixed = ["tracking=none", "model.n_layer=1", "model.dropout=0", "train.warmup=0", "train.max_steps=2"]
    sizes = [setting for setting in FEW if not setting.startswith("train.eval_every")]
    command(
        *["-m", "hydra/sweeper=optuna", "loss=cross_entropy,squentropy", "hydra.sweeper.n_trials=20"],
        *[*sampler, *fixed, *sizes],
        cwd=tmp_path,
        check=True,
    )
    blocks = search.section(search.find(f"sqlite:///{tmp_path}/optuna.db")).blocks
    (drawn,) = (block for block in blocks if isinstance(block, Figure) and block.name == "search-importance")
    assert drawn.caption.startswith("Conditional PED-ANOVA of 20 complete trials")
    assert "Trials that have a setting which others lack: loss.weight " in drawn.caption

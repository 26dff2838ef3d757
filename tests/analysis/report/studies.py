"""Optuna studies for tests of the search section."""

import math
from collections.abc import Sequence
from typing import Any

import optuna
from matplotlib.figure import Figure as Drawing
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

SPACE: dict[str, BaseDistribution] = {
    "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
    "model.n_layer": IntDistribution(1, 4),
    "optimizer": CategoricalDistribution(["adamw", "sgd"]),
}
LINK = "http://127.0.0.1:5000/#/experiments/1/runs/0123456789"


def trial(
    values: Sequence[float] | None = None,
    *,
    lr: float = 1e-3,
    n_layer: int = 2,
    optimizer: str = "adamw",
    intermediate: dict[int, float] | None = None,
    state: TrialState = TrialState.COMPLETE,
    attrs: dict[str, Any] | None = None,
) -> FrozenTrial:
    return create_trial(
        state=state,
        values=values,
        params={"optimizer.lr": lr, "model.n_layer": n_layer, "optimizer": optimizer},
        distributions=SPACE,
        intermediate_values=intermediate or {},
        user_attrs=attrs or {},
    )


def add(url: str, name: str, trials: Sequence[FrozenTrial], directions: Sequence[str] = ("minimize",), **settings: Any):
    study = optuna.create_study(study_name=name, storage=url, directions=list(directions))
    study.set_user_attr("settings", settings)
    study.add_trials(trials)
    return study


def single() -> list[FrozenTrial]:
    attrs = {
        "mlflow_link": LINK.replace("//", "//me:secret@"),
        "mlflow_run_id": "0123456789",
        "standard_errors": [0.25],
    }
    return [
        trial([8.0], intermediate={10: 90.0, 100: 8.0}, lr=1e-2),
        trial([16.0], intermediate={10: 120.0, 100: 16.0}, lr=1e-4),
        trial(intermediate={10: 700.0, 30: 400.0}, state=TrialState.PRUNED, attrs={"pruned": True}),
        trial([4.125], intermediate={10: 80.0, 100: 4.125}, attrs=attrs),
        trial([1.0], intermediate={10: math.inf}, attrs={"diverged": True}),
        trial(state=TrialState.FAIL),
        trial([5.0], intermediate={10: 85.0, 100: 5.0}),
        trial(intermediate={10: 600.0}, state=TrialState.PRUNED, attrs={"pruned": True}),
    ]


def line(drawing: Drawing, label: str) -> tuple[list[float], list[float]]:
    (curve,) = [curve for curve in drawing.axes[0].lines if curve.get_label() == label]
    return list(curve.get_xdata()), list(curve.get_ydata())

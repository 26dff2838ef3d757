"""The studies of a comparison around recorded runs, as the comparison sweeper stores them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from analysis.recorded_run import RecordedRun
from tests.analysis.report.studies import add

LR = FloatDistribution(1e-3, 1e-1, log=True)
CONFIRMATION = {"trial": IntDistribution(0, 1000), "seed": IntDistribution(0, 1000)}
STATES = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL, "running": TrialState.RUNNING}
METRIC = "val/perplexity"


def write(
    url: str,
    name: str,
    tuning: Mapping[str, Sequence[RecordedRun]],
    confirmation: Mapping[str, Sequence[RecordedRun]],
    *,
    spaces: Mapping[str, Mapping[str, BaseDistribution]] | None = None,
    key: str = "loss",
    **plan: Any,
) -> None:
    """Write the studies of a comparison.

    Args:
        url: Storage of Optuna.
        name: Name of the comparison.
        tuning: The runs of the tuning trials of each contender, by its label. The first is that of the configuration
            as it stands.
        confirmation: The runs that confirm the best trial of each contender, by its label.
        spaces: The space of each contender; by default the learning rate.
        key: The key whose values are the contenders.
        plan: Values of the attribute `comparison` that differ from what the runs say.
    """
    confirmed = []
    for position, (label, runs) in enumerate(tuning.items()):
        space = (spaces or {}).get(label, {"optimizer.lr": LR})
        trials = [_trial(run, space, {axis: _drawn(run.params[axis], space[axis]) for axis in space}) for run in runs]
        trials[0].set_user_attr("enqueued", "current")
        values = {i: trial.values[0] for i, trial in enumerate(trials) if trial.values and trial.values[0] < math.inf}
        attribute = {
            "name": name,
            "position": position,
            "label": label,
            "setting": {key: label.removeprefix(f"{key}=")},
            "command": f"python run.py -m hydra/sweeper=compare {key}={','.join(tuning)}",
            "n_trials": len(runs),
            "tune_steps": 100,
            "max_steps": 400,
            "seeds": sorted({run.seed for runs in confirmation.values() for run in runs}),
            "chosen": min(values, key=lambda i: values[i], default=None),
        } | plan
        study = add(url, f"{name}/{label}", trials, **{"hydra.sweeper.objectives": [METRIC]})
        study.set_user_attr("comparison", attribute)
        for run in confirmation.get(label, ()):
            params = {"contender": label, "trial": attribute["chosen"], "seed": run.seed}
            confirmed.append(_trial(run, CONFIRMATION | {"contender": CategoricalDistribution([*tuning])}, params))
    if confirmed:
        add(url, f"{name}/confirmation", confirmed)


def _trial(run: RecordedRun, space: Mapping[str, BaseDistribution], params: Mapping[str, Any]) -> FrozenTrial:
    state = STATES.get(run.state, TrialState.COMPLETE)
    attributes: dict[str, Any] = {"mlflow_run_id": run.id, "mlflow_link": run.link}
    if run.state == "diverged":
        attributes["diverged"] = True
    value = math.inf if run.state == "diverged" else run.metrics[METRIC]
    return create_trial(
        state=state,
        value=value if state is TrialState.COMPLETE else None,
        params=dict(params),
        distributions=dict(space),
        user_attrs=attributes,
    )


def _drawn(value: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return value
    return int(value) if isinstance(distribution, IntDistribution) else float(value)

"""Parameters of runs, in the form of this program and of an older one."""

from analysis.configuration import compose
from analysis.recorded_run import RecordedRun
from nanosq import config
from nanosq.tracking.parameters import readable

OLDER = {
    **{"loss._target_": "nanosq.losses.squentropy", "loss._partial_": "True", "loss.weight": "1.0"},
    **{"optimizer._target_": "torch.optim.AdamW", "optimizer.lr": "0.1", "tracking.uri": "sqlite:///mlflow.db"},
    **{"data.source._target_": "nanosq.data.stories.stories", "tracking._target_": "nanosq.tracking.Store"},
}
NEW = {
    **{"loss": "squentropy", "loss.weight": "1.0", "optimizer": "torch.optim.AdamW", "optimizer.lr": "0.1"},
    "data.source": "stories",
}


def test_components_are_named() -> None:
    settings = config.flatten(compose(["loss=squentropy", "optimizer=muon", "tracking.experiment=x"]))
    parameters = readable(settings)
    components = ("model", "loss", "optimizer", "schedule", "data.source", "data.tokenizer")
    assert [parameters[key] for key in components] == ["GPT", "squentropy", "Muon", "cosine", "stories", "gpt2"]
    assert parameters["loss.weight"] == 1.0
    assert not [key for key in parameters if key.startswith("tracking") or "._" in key]
    kept = {key for key in settings if not key.startswith("tracking") and "._" not in key}
    assert parameters.keys() == kept | {*components}


def test_parameters_of_an_older_run_become_those_of_a_new_run() -> None:
    assert readable(OLDER) == NEW == readable(NEW)
    older, new = (RecordedRun("1", "r", "FINISHED", 0, "", "", {**params}, {}, {}) for params in (OLDER, NEW))
    assert older.setting == new.setting == NEW
    assert older.key == new.key
    assert older.loss == new.loss == "squentropy"

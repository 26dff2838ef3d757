"""Training that starts from weights, on the command line: the model that is chosen, and the identity of the run."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import torch

from analysis.configuration import compose
from nanosq import checkpoint, command_line, config, identity, start
from nanosq.data.tokenizers import GPT2
from nanosq.export import export
from nanosq.start import Start
from nanosq.tracking import Store
from tests.commandline import SMALL, command, printed_perplexity, runs
from tests.weights import SIZES, random_weights

EMPTY: dict[str, Any] = {"tokenizer": {}, "model": {}, "optimizer": {}, "scaler": {}}
STATE = EMPTY | {"progress": {"step": 0}, "run_id": "", "splits": []}
DATA = [setting for setting in SMALL if not setting.startswith("model.")]
BYTES = ["data.tokenizer._target_=nanosq.data.tokenizers.byte_level", "~data.tokenizer.vocabulary"]
STILL = ["optimizer.lr=0", "samples.count=0"]  # the weights do not change


CHOSEN = [
    ["init_from=gpt2"],
    ["-m", "init_from=a,b", "optimizer.lr=1e-3,1e-2"],
    ["init_from='a, b'", "model.n_layer=2", "--config-dir", "mine"],
    ["++init_from=/a/b c.pt", "--cfg", "job"],
    ["init_from=null", "init_from=a"],
]
NOT_CHOSEN = [
    ["init_from=null"],
    ["init_from="],
    ["init_from=a", "model=tiny"],
    ["-m", "init_from=a", "model=tiny,gpt2"],
    ["init_from=a", "experiment=mine"],
    ["init_from=a", "model._target_=mine.Model"],
    ["-m", "init_from=null,a"],
    ["init_from=(a"],
    [],
]


@pytest.mark.parametrize("arguments", [*CHOSEN, *NOT_CHOSEN])
def test_weights_choose_the_model(arguments: list[str]) -> None:
    added = ["model=pretrained"] if arguments in CHOSEN else []
    assert command_line.prepared(arguments) == [*arguments, *added]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A folder with a recorded run, and its best.pt."""
    folder = tmp_path_factory.mktemp("trained")
    command(*SMALL, "samples.count=0", cwd=folder, check=True)
    (run,) = runs(folder)
    best = Path(run.info.artifact_uri.removeprefix("file://")) / "checkpoint/best.pt"
    return SimpleNamespace(folder=folder, best=best, run=run)


def test_a_run_id_is_enough(trained: SimpleNamespace) -> None:
    """The sizes come from the weights, and are recorded; the command that is recorded trains the same again."""
    result = command(*DATA, *STILL, f"init_from={trained.run.info.run_id}", cwd=trained.folder, check=True)
    assert printed_perplexity(result) == pytest.approx(trained.run.data.metrics["best/val_perplexity"], rel=1e-4)
    run = next(run for run in runs(trained.folder) if run.info.run_id != trained.run.info.run_id)
    sizes = {"n_layer": "1", "n_embd": "16", "n_head": "1", "block_size": "64", "bias": "False", "activation": "gelu"}
    assert {key: run.data.params[f"model.{key}"] for key in sizes} == sizes
    assert run.data.tags["command"].endswith(f"init_from={trained.run.info.run_id} model=pretrained")
    assert run.data.params["init_from"] == trained.run.info.run_id
    assert run.data.tags["parent"]


def test_the_same_weights_under_another_name_are_the_same_trial(trained: SimpleNamespace, tmp_path: Path) -> None:
    saved = checkpoint.load(trained.best)
    changed = saved | {"model": {**saved["model"], "final_norm.weight": torch.zeros(16)}}
    shutil.copy(trained.best, tmp_path / "copy.pt")
    checkpoint.save(tmp_path / "changed.pt", changed)
    hashes = []
    for name in (trained.best, tmp_path / "copy.pt", tmp_path / "changed.pt"):
        cfg, found = start.find(compose(["model=pretrained", f"init_from={name}"]), Store(), "c")
        hashes.append(identity.config_hash(cfg, parent=found.parent))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_search_leaves_the_depth_to_the_weights(trained: SimpleNamespace) -> None:
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.enqueue=[]"]
    result = command(*search, *DATA, "score_test=false", f"init_from={trained.best}", cwd=trained.folder, check=True)
    assert "n_layer" not in result.stdout + result.stderr


def test_sizes_of_a_state_to_resume(tmp_path: Path) -> None:
    """The weights from which the run started are not needed any more."""
    typed = ["model=pretrained", "model.block_size=4", "init_from=gone", "train.max_steps=9"]
    trained = config.replaced(compose(typed), "model", SIZES | {"block_size": 4})
    saved = STATE | {"settings": identity.relevant_settings(trained), "architecture": config.arguments(trained.model)}
    state = tmp_path / "last.pt"
    saved |= {"config_hash": identity.config_hash(trained, parent="p"), "parent": "p", "code": "c"}
    checkpoint.save(state, saved)
    cfg, found = start.find(compose([*typed, f"resume={state}"]), Store(), "c")
    assert cfg.model == trained.model
    assert found == Start(state=state, parent="p", is_repeatable=False)


def test_a_state_of_a_version_that_had_fewer_arguments_of_the_model(tmp_path: Path) -> None:
    """An argument that the state does not name had its default."""
    settings = identity.relevant_settings(compose([]))
    del settings["model.activation"]
    saved = STATE | {"settings": settings, "architecture": {}, "config_hash": "", "code": "c"}
    checkpoint.save(tmp_path / "last.pt", saved)
    _, found = start.find(compose([f"resume={tmp_path}/last.pt"]), Store(), "c")
    assert found.state == tmp_path / "last.pt"
    with pytest.raises(ValueError, match=r"model\.activation was gelu in the run to resume and is now gelu_tanh"):
        start.find(compose([f"resume={tmp_path}/last.pt", "model.activation=gelu_tanh"]), Store(), "c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init_from={best}", "model.n_layer=3"], "model.n_layer is 3, and the weights of init_from={best} have 1"),
        (["init_from={best}", "model=tiny"], "model.n_layer is 2, "),
        (["init_from={best}", *BYTES], "was trained with another tokenizer (CutGPT2)"),
        (["init_from={best}", "data.source.seed=9"], "was trained on another text"),
        (["init_from="], "init_from=: must be a name that is not empty"),
        (["model=pretrained"], "model.n_layer=null is that of the weights of init_from=..., which is not set"),
        (["resume=."], "resume=. is a folder"),
    ],
)
def test_what_cannot_be_trained_is_one_line(arguments: list[str], message: str, trained: SimpleNamespace) -> None:
    n_runs = len(runs(trained.folder))
    typed = [argument.format(best=trained.best) for argument in arguments]
    result = command(*DATA, *typed, cwd=trained.folder)
    assert result.returncode == 2
    (line,) = (line for line in result.stderr.splitlines() if not line.startswith(("stories: ", "texts: ")))
    assert line.startswith("error: ")
    assert message.format(best=trained.best) in line
    assert len(runs(trained.folder)) == n_runs


def test_fine_tuning_lowers_the_nll(tmp_path: Path) -> None:
    """The preset, with a random GPT-2 in Hugging Face's format."""
    export(random_weights(GPT2(), n_layer=2, n_head=2, n_embd=16, block_size=64), tmp_path / "gpt2", "")
    small = ["init_from=gpt2", "model.block_size=48", "samples.count=0", "score_test=false", "train.log_every=1"]
    command("experiment=finetune_gpt2", *DATA, *small, "optimizer.lr=1e-2", cwd=tmp_path, check=True)
    (run,) = runs(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    before = client.get_metric_history(run.info.run_id, "train/nll")[0].value  # of the first batch
    assert run.data.metrics["val/nll"] < before - 0.2
    sizes = [run.data.params[f"model.{key}"] for key in ("n_embd", "block_size", "dropout", "activation")]
    assert sizes == ["16", "48", "0.1", "gelu_tanh"]
    assert int(run.data.tags["vocabulary"]) < 2000

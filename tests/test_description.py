"""Names of runs, and commands that train them again."""

import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.conf import ConfigSourceInfo
from omegaconf import DictConfig, OmegaConf

from nanosq import config, identity, schema, sweeps
from nanosq.description import Description, describe
from nanosq.sweeps.trial import TrialRun

CONF = Path(__file__).parents[1] / "conf"
COMMAND = "python run.py loss=squentropy optimizer=adamw optimizer.lr=0.002"
schema.register()
sweeps.register()
SETTINGS = [
    [],
    ["loss=squentropy", "loss.weight=0.5", "seed=7"],
    ["optimizer=adamw", "optimizer.betas=[0.8,0.9]", "experiment=ten_minutes", "+model.more=true"],
    ["data=text", "data.source.train='a story.txt'", r"data.source.separator=\n", "resume=never"],
    ["seeds=3", "seed=1", "train.max_steps=5", "train.max_steps=10", "seed=2"],
]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF)):
        return compose("config", overrides=[*overrides], return_hydra_config=True)


def described(*overrides: str, trial: TrialRun | None = None) -> Description:
    cfg = composed(*overrides)
    return describe(cfg.hydra, cfg, trial)


@pytest.mark.parametrize("overrides", SETTINGS, ids=str)
def test_the_command_has_the_identity_of_the_run(overrides: list[str]) -> None:
    cfg = composed(*overrides)
    program = shlex.split(describe(cfg.hydra, cfg, None).command)
    again = composed(*program[2:])
    assert program[:2] == ["python", "run.py"]
    hashes = [identity.config_hash(config.without_hydra(one)) for one in (cfg, again)]
    assert hashes[0] == hashes[1]
    assert again.seeds == 1  # which a single run demands


def test_the_command_names_the_folder_of_the_user_and_masks_passwords() -> None:
    cfg = composed("tracking.uri='http://me:secret@host'")
    OmegaConf.set_readonly(cfg, False)
    cfg.hydra.runtime.config_sources.append(ConfigSourceInfo(str(Path.cwd() / "own"), "", "command-line"))
    assert "--config-path" not in describe(cfg.hydra, cfg, None).command
    main = next(source for source in cfg.hydra.runtime.config_sources if source.provider == "main")
    main.path = "/else/where"
    cfg.hydra.overrides.hydra = ["hydra.searchpath=[file://more]", "hydra.mode=MULTIRUN"]
    program = shlex.split(describe(cfg.hydra, cfg, None).command)
    assert program[2:6] == ["--config-path", "/else/where", "--config-dir", "own"]
    assert program[6:] == ["hydra.searchpath=[file://more]", "tracking.uri='http://me:***@host'"]


@pytest.mark.parametrize(
    "settings", [[], ["hydra/sweeper=optuna"], ["hydra/sweeper=basic"], ["seeds=2"], ["seeds=1"]], ids=str
)
def test_the_command_of_a_preset_that_is_for_sweeps(settings: list[str]) -> None:
    assert "hydra.mode=RUN" in described("experiment=paper_grid", *settings).command
    assert "hydra.mode=RUN" not in described(*settings).command


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "cross_entropy lr=0.012 seed=1337"),
        (["loss=squentropy", "seed=2", "device=cpu", "seeds=2"], "squentropy lr=0.012 seed=2"),
        (
            ["loss=focal", "loss.gamma=2", "optimizer=sgd", "optimizer.lr=0.10001234"],
            "focal sgd lr=0.1 gamma=2 seed=1337",
        ),
        (["data.source.n_val=99", "model.n_layer=1"], "cross_entropy lr=0.012 n_layer=1 source.n_val=99 seed=1337"),
        (
            ["loss._target_=mine.loss", "experiment=ten_minutes"],
            "mine.loss ten_minutes lr=0.004 seed=1337",
        ),
    ],
)
def test_names_of_single_runs(overrides: list[str], name: str) -> None:
    assert described(*overrides).name == name


def test_names_of_trials_have_the_settings_that_vary() -> None:
    overrides = ["loss=squentropy", "train.max_steps=200", "optimizer.lr=0.0020004321", "seed=2"]
    trial = TrialRun("grid-e700304b", 7, setting="loss=squentropy optimizer.lr=0.002")
    assert described(*overrides, trial=trial).name == "squentropy lr=0.002 seed=2 · grid-e700304b #7"
    assert "#7" in described(*overrides, trial=TrialRun("grid-e700304b", 7)).name
    long = described(*(f"+model.name_{i}=value" for i in range(20))).name
    assert len(long) < 100
    assert long.endswith(" ... seed=1337")


def test_the_name_of_the_data_is_that_of_its_source() -> None:
    assert described("data=text", "data.source.train=a.txt").data == "text"
    assert described("data.source._target_=mydata.sums").data == "mydata.sums"


@pytest.mark.parametrize("state", ["0" * 32, "my checkpoints/a1b2/final.pt"])
def test_the_command_that_trains_further(state: str) -> None:
    settings = ["loss=squentropy", "train.max_steps=6", "train.keep_last=true", "resume=never"]
    assert shlex.split(described(*settings).further(state)) == [
        *["python", "run.py", "loss=squentropy", "train.keep_last=true"],
        *[f"resume={state}", "train.max_steps=..."],
    ]


def test_the_description_says_what_the_run_is() -> None:
    trial = TrialRun("grid-1", 7, setting="optimizer.lr=0.002")
    about = described("loss=squentropy", "optimizer=adamw", "optimizer.lr=0.002", trial=trial)
    tags = about.tags(n_parameters=637_000, n_classes=1644)
    assert (tags["command"], tags["data"]) == (COMMAND, "stories")
    assert (tags["parameters"], tags["vocabulary"]) == ("637000", "1644")
    assert tags["mlflow.note.content"] == (
        "Trains GPT with **squentropy** and AdamW on stories: 1,200 steps, seed 1337."
        " Trial 7 of the sweep grid-1: optimizer.lr=0.002."
        " The model has 637,000 parameters and a vocabulary of 1,644 tokens.\n\n"
        f"This command trains it again: `{COMMAND}`"
    )

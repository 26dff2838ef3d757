"""Hydra composes the command of each part of commands.sh, and the part sweeps what design.md says."""

import os
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from nanosq import schema, sweeps
from nanosq.installation import CONF
from tests.commandline import ROOT, environment

STUDY = ROOT / "analysis/study"
SIX = "cross_entropy,squentropy_1,squentropy_0.1,squentropy_0.01,z_loss_0.001,logit_penalty_0.1"
THREE = "cross_entropy,squentropy_1,squentropy_0.1"
RATES = "choice(4e-3, 8e-3, 1.6e-2, 3.2e-2)"
schema.register()
sweeps.register()


def command(part: str, folder: Path) -> list[str]:
    """Return the arguments of run.py in a part: they are given to a program that prints them."""
    (folder / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (folder / "python").chmod(0o755)
    files = {"TRAIN": "/train.txt", "TEST": "/test.txt"}
    variables = environment() | files | {"PATH": f"{folder}:{os.environ['PATH']}"}
    shell = ["sh", str(STUDY / "commands.sh"), part]
    return subprocess.run(shell, cwd=folder, env=variables, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )


def composed(part: str, folder: Path) -> tuple[str, DictConfig]:
    """Return the losses and the configuration of a part."""
    script, option, conf, multirun, *overrides = command(part, folder)
    assert (script, option, multirun) == (str(ROOT / "run.py"), "--config-dir", "-m")
    typed = dict(text.split("=", 1) for text in overrides if text)
    losses = typed.pop("loss")
    typed.pop("seed", None)  # an axis
    search = [f"hydra.searchpath=[file://{conf}]", *(f"{key}={value}" for key, value in typed.items())]
    with initialize_config_dir(str(CONF)):
        return losses, compose("config", overrides=search, return_hydra_config=True)


@pytest.mark.parametrize(
    ("part", "losses", "rates", "dropout", "n_seeds", "settings"),
    [
        ("text", SIX, RATES, "choice(0.0, 0.1)", 5, {"n_layer": 4, "n_embd": 128, "max_steps": 1000}),
        ("stories", SIX, RATES, "choice(0.0, 0.1)", 5, {"n_layer": 2, "n_embd": 128, "max_steps": 1200}),
        ("adamw", THREE, "choice(1e-3, 2e-3, 4e-3, 8e-3)", "choice(0.0, 0.1)", 5, {"n_layer": 4, "max_steps": 1000}),
        ("small", THREE, RATES, "0.0", 5, {"n_layer": 2, "n_embd": 64, "max_steps": 1000}),
        ("large", THREE, RATES, "0.0", 3, {"n_layer": 6, "n_embd": 192, "max_steps": 1000}),
        (
            "vocabulary_10000",
            THREE,
            "choice(4e-3, 8e-3, 1.6e-2)",
            "0.0",
            3,
            {"vocabulary": 10000, "n_embd": 128, "max_steps": 400},
        ),
        ("vocabulary_50257", THREE, "choice(4e-3, 8e-3, 1.6e-2)", "0.0", 3, {"vocabulary": "full", "n_embd": 128}),
    ],
)
def test_comparisons(
    part: str, losses: str, rates: str, dropout: str, n_seeds: int, settings: dict[str, int], tmp_path: Path
) -> None:
    swept, cfg = composed(part, tmp_path)
    sweeper = cfg.hydra.sweeper
    assert swept == losses
    assert sweeper.params == {"optimizer.lr": rates, "model.dropout": dropout, "train.warmup": "0.05"}
    assert (sweeper.seeds, sweeper.tune_steps, cfg.seed) == (n_seeds, cfg.train.max_steps, 0)
    assert cfg.optimizer._target_.endswith("AdamW" if part == "adamw" else "Muon")
    found = {**cfg.model, **cfg.train, **cfg.data.tokenizer}
    assert {key: found[key] for key in settings} == settings
    if part != "stories":
        assert (cfg.data.source.train, cfg.data.source.test) == ("/train.txt", "/test.txt")
        assert (cfg.train.batch_size, cfg.model.block_size, cfg.data.source.val_fraction) == (8, 256, 0.03)


@pytest.mark.parametrize(("part", "warmup"), [("grid_report", 2000), ("grid_warmup", 0.1)])
def test_grids(part: str, warmup: float, tmp_path: Path) -> None:
    loss, cfg = composed(part, tmp_path)
    assert "seed=1,2,3" in command(part, tmp_path)
    assert loss == "squentropy_repo"
    assert (cfg.train.warmup, cfg.model.n_embd, cfg.data.tokenizer.vocabulary) == (warmup, 128, 4096)
    assert not cfg.score_test
    assert cfg.hydra.sweeper._target_.endswith("GridSweeper")

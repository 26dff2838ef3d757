"""Settings of components in sweeps that choose components: every trial is composed by itself."""

from pathlib import Path

import pytest

from tests.commandline import command
from tests.sweeps.commandline import table
from tests.sweeps.test_seeds import SEARCH, TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two presets that choose losses."""
    folder = tmp_path_factory.mktemp("overrides")
    (folder / "own/experiment").mkdir(parents=True)
    for loss in ("squentropy", "z_loss"):
        preset = f"# @package _global_\ndefaults:\n  - override /loss: {loss}\n"
        (folder / f"own/experiment/{loss}.yaml").write_text(preset)
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        ["loss=squentropy,z_loss", "loss.weight=0.01"],
        ["--config-dir", "own", "experiment=squentropy,z_loss", "loss.weight=0.01"],
        [
            "hydra/sweeper=grid",
            "optimizer.lr=1e-3",
            "model.dropout=0.0",
            "optimizer.betas=[0.8,0.9]",
            "optimizer.fused=false",
        ],
        [*SEARCH, "loss=squentropy,z_loss", "loss.weight=0.01", "~loss.weight"],
    ],
)
def test_a_key_that_every_trial_has_is_accepted(settings: list[str], folder: Path) -> None:
    result = command("-m", *settings, *TINY, cwd=folder, check=True)
    assert {row["state"] for row in table(result.stdout)} == {"finished"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["optimizer=sgd,adamw", "optimizer.momentum=0.9"], "trial 1, optimizer=adamw: Could not override"),
        (["model.n_layer=1,2", "loss.weight=0.9"], "trial 0, model.n_layer=1: Could not override 'loss.weight'"),
        (["experiment=paper_cross_entropy,paper_grid", "loss.target_weight=1"], "trial 0, experiment=paper_cross_"),
        (["loss=focal,poly1", "~loss.gamma"], "trial 1, loss=poly1: Could not delete"),
        ([*SEARCH, "loss=z_loss,focal", "loss.weight=1"], "loss=focal: Could not override 'loss.weight'"),
        ([*SEARCH, "optimizer=sgd,muon,adamw", "optimizer.momentum=interval(0,1)"], "optimizer=adamw: Could not"),
    ],
)
def test_a_key_that_a_trial_lacks_is_refused_by_the_name_of_the_trial(
    settings: list[str], message: str, tmp_path: Path
) -> None:
    result = command("-m", *TINY, *settings, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert result.stderr.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())

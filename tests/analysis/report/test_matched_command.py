"""Runs that run.py has trained, as the report compares them."""

from pathlib import Path

import pytest

from analysis import runs
from analysis.report import compare, facts, listing, scores
from tests.analysis.blocks import tables
from tests.commandline import SMALL, command

OWN = """import nanosq.losses

def cross_entropy(logits_NV, targets_N):
    return nanosq.losses.{}(logits_NV, targets_N)
"""
SETTINGS = [*SMALL, "train.max_steps=2", "samples.count=0"]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with unequal seeds of the losses, two weights of one, and two functions of a user with the same name."""
    folder = tmp_path_factory.mktemp("selection")
    (folder / "conf" / "loss").mkdir(parents=True)
    for module, loss in (("mine", "squentropy"), ("yours", "brier")):
        (folder / f"{module}.py").write_text(OWN.format(loss))
        (folder / "conf" / "loss" / f"{module}.yaml").write_text(f"_target_: {module}.cross_entropy\n_partial_: true\n")
    command("-m", *SETTINGS, "seed=1,2,3", cwd=folder, check=True)
    command("-m", *SETTINGS, "loss=squentropy", "loss.weight=1,0.1", "seed=1,2", cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        own = ["--config-dir", "conf", "loss=mine,yours", "seed=1"]
        command("-m", *SETTINGS, *own, cwd=folder, check=True, warm=False)
    return folder


def test_settings_and_seeds(folder: Path) -> None:
    first, *_ = listing.comparisons(runs.load(f"sqlite:///{folder}/mlflow.db"), [])
    table = {row[0].text: row for row in tables(scores.section(first.settings))["test-scores"].cells()}
    weights = ("squentropy weight=1", "squentropy weight=0.1")
    own = {"mine.cross_entropy": "1", "yours.cross_entropy": "1"}
    assert {label: row[-1].text for label, row in table.items()} == {
        **{"cross_entropy": "2 (without 3)"},
        **{**dict.fromkeys(weights, "2"), **own},
    }
    for label in weights:
        result = first.verdict("cross_entropy", label)
        assert result.seeds == [1, 2]
        of_table = float(table[label][3].value or 0) - float(table["cross_entropy"][3].value or 0)
        assert result.difference is not None
        assert result.difference.effect == pytest.approx(of_table)
        assert "Left out: seed 3 of cross_entropy (not scored with squentropy weight=1 and 1 more)." in result.notes
    tried = "1 of cross_entropy, 1 of mine.cross_entropy, 2 of squentropy and 1 of yours.cross_entropy."
    assert tried in facts.fairness(first)


def test_optimizers_are_trained_by_one_version_of_the_program(folder: Path, tmp_path: Path) -> None:
    command("-m", *SETTINGS, "optimizer=adamw,muon", "seed=1,2", cwd=tmp_path, check=True)
    (only,) = listing.comparisons(runs.load(f"sqlite:///{tmp_path}/mlflow.db"), [])
    assert (only.what, [*only.settings]) == ("optimizer", ["AdamW", "Muon"])
    assert only.verdict(*only.order).besides == []


def test_two_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    store = f"sqlite:///{folder}/mlflow.db"
    by_loss = {run.loss: run.id for run in runs.load(store)}
    assert compare.main([by_loss["cross_entropy"], by_loss["yours.cross_entropy"], "--tracking-uri", store]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "cross_entropy and yours.cross_entropy have one seed in common (1)" in printed
    assert "Left out: seeds 2, 3 of cross_entropy (not scored with yours.cross_entropy)." in printed

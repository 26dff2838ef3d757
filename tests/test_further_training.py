"""Training a finished run further: `train.keep_last` keeps its state, and `resume` starts another run from it."""

import shlex
from pathlib import Path

import pytest

from tests.commandline import SMALL, command, printed_perplexity, runs

SETTINGS = [*SMALL, "samples.count=0", "train.log_every=1", "schedule=constant"]


@pytest.mark.slow
def test_a_finished_run_is_trained_further(tmp_path: Path) -> None:
    """The example: more steps, and the test score. With a constant rate the steps equal those of one long run."""
    command(*SETTINGS, "train.keep_last=true", "score_test=false", cwd=tmp_path, check=True)
    (trunk,) = runs(tmp_path)
    assert not [*(tmp_path / "checkpoints").iterdir()]
    longer = [*SETTINGS, "train.max_steps=12", "train.warmup=0"]
    refused = command(*longer, f"resume={trunk.info.run_id}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "train.warmup was 0.05 in the run to resume and is now 0" in refused.stderr
    longer = [*SETTINGS, "train.max_steps=12"]
    further = command(*longer, f"resume={trunk.info.run_id}", cwd=tmp_path, check=True)
    assert "resumed after step 6" in further.stderr
    branch, _ = runs(tmp_path)
    assert branch.data.tags["resumed_from"] == trunk.info.run_id
    assert "test/nll" in branch.data.metrics.keys() - trunk.data.metrics.keys()
    whole = command(*longer, "train.warmup=0", "tracking=none", cwd=tmp_path, check=True)
    assert printed_perplexity(further) == printed_perplexity(whole)


@pytest.mark.slow
def test_one_trunk_and_several_decays(tmp_path: Path) -> None:
    """A sweep of branches finds its finished trials again, and a run from scratch is not one of them."""
    command(*SETTINGS, "train.keep_last=true", cwd=tmp_path, check=True)
    (trunk,) = runs(tmp_path)
    decays = [*SETTINGS, "schedule=warmup_stable_decay", "train.max_steps=10", f"resume={trunk.info.run_id}"]
    sweep = ["-m", *decays, "schedule.decay=0.2,0.4"]
    first = command(*sweep, cwd=tmp_path, check=True)
    assert first.stderr.count("resumed after step 6") == 2
    again = command(*sweep, cwd=tmp_path, check=True)
    assert again.stdout.count("as recorded") == 2
    branches = [run for run in runs(tmp_path) if run.info.run_id != trunk.info.run_id]
    assert len(branches) == 2
    assert {run.data.tags["resumed_from"] for run in branches} == {trunk.info.run_id}
    scratch = command(*[one for one in sweep if not one.startswith("resume=")], cwd=tmp_path, check=True)
    assert "as recorded" not in scratch.stdout
    hashes = {run.data.tags["config_hash"] for run in runs(tmp_path)}
    assert len(hashes) == 5


@pytest.mark.slow
def test_runs_to_resume_are_an_axis(tmp_path: Path) -> None:
    """Trials of different trunks have different results, and a search does not mix them."""
    for lr in (1e-3, 2e-2):
        command(*SETTINGS, "train.keep_last=true", f"optimizer.lr={lr}", cwd=tmp_path, check=True)
    trunks = {float(run.data.params["optimizer.lr"]): run.info.run_id for run in runs(tmp_path)}
    pairs = [f"optimizer.lr={','.join(map(str, trunks))}", f"resume={','.join(trunks.values())}"]
    longer = ["-m", *SETTINGS, "train.max_steps=9", *pairs, "hydra.sweeper.zip=[optimizer.lr,resume]"]
    result = command(*longer, cwd=tmp_path, check=True)
    assert "not trained" not in result.stdout
    branches = [run for run in runs(tmp_path) if "resumed_from" in run.data.tags]
    assert {run.data.tags["resumed_from"] for run in branches} == {*trunks.values()}
    (preset,) = tmp_path.glob("sweeps/*/experiment/*.yaml")
    assert any(f"resume: {trunk}" in preset.read_text() for trunk in trunks.values())
    search = [
        "-m",
        "hydra/sweeper=optuna",
        "hydra.sweeper.params=null",
        "hydra.sweeper.n_trials=1",
        "optimizer.lr=1e-3",
    ]
    search += [*SETTINGS, "train.max_steps=9", "train.eval_every=choice(3,4)"]
    command(*search, f"resume={trunks[1e-3]}", cwd=tmp_path, check=True)
    refused = command(*search, "optimizer.lr=2e-2", f"resume={trunks[2e-2]}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "was started with" in refused.stderr


@pytest.mark.slow
def test_a_reused_trial_has_the_state_that_is_asked_for(tmp_path: Path) -> None:
    sweep = ["-m", *SETTINGS, "optimizer.lr=1e-3"]
    command(*sweep, cwd=tmp_path, check=True)
    assert "as recorded" not in command(*sweep, "train.keep_last=true", cwd=tmp_path, check=True).stdout
    assert "as recorded" in command(*sweep, "train.keep_last=true", cwd=tmp_path, check=True).stdout
    assert "as recorded" in command(*sweep, cwd=tmp_path, check=True).stdout


@pytest.mark.slow
def test_the_state_of_a_run_that_is_not_recorded(tmp_path: Path) -> None:
    """Without a store, the state stays in the checkpoint folder. The same command does not resume it by itself."""
    settings = [*SETTINGS, "tracking=none"]
    first = command(*settings, "train.keep_last=true", cwd=tmp_path, check=True)
    (state,) = tmp_path.glob("checkpoints/*/final.pt")
    (proposed,) = (line for line in first.stdout.splitlines() if line.startswith("to train further: python run.py "))
    again = command(*settings, "train.keep_last=true", cwd=tmp_path, check=True)
    assert "resumed" not in again.stderr
    assert again.stdout == first.stdout
    further = [word.replace("=...", "=9") for word in shlex.split(proposed)[5:]]
    assert f"resume={state.relative_to(tmp_path)}" in further
    result = command(*further, cwd=tmp_path, check=True)
    assert "resumed after step 6" in result.stderr
    assert "train.max_steps=5: raise train.max_steps" in command(*further, "train.max_steps=5", cwd=tmp_path).stderr
    refused = command(*further, "train.batch_size=10", cwd=tmp_path)
    assert "train.batch_size was 4 in the run to resume and is now 10: set it to the old value" in refused.stderr


@pytest.mark.parametrize("change", ["optimizer.lr=1e-3", "loss=squentropy", "seed=5", "train.batch_size=2"])
def test_settings_that_may_not_change(change: str, tmp_path: Path) -> None:
    command(*SETTINGS, "tracking=none", "train.keep_last=true", cwd=tmp_path, check=True)
    (state,) = tmp_path.glob("checkpoints/*/final.pt")
    refused = command(*SETTINGS, "tracking=none", "train.max_steps=9", f"resume={state}", change, cwd=tmp_path)
    assert refused.returncode == 2
    assert "set it to the old value" in refused.stderr


@pytest.mark.slow
def test_init_from_a_file_that_was_replaced_is_another_run(tmp_path: Path) -> None:
    """A sweep reuses a finished trial only if it started from the same weights."""
    for seed in (1, 2):
        command(*SETTINGS, "tracking=none", f"seed={seed}", f"checkpoint_dir=from{seed}", cwd=tmp_path, check=True)
    first, second = (next((tmp_path / f"from{seed}").glob("*/best.pt")) for seed in (1, 2))
    weights = tmp_path / "weights.pt"
    sweep = ["-m", *SETTINGS, f"init_from={weights}", "optimizer.lr=1e-3,2e-3"]
    weights.write_bytes(first.read_bytes())
    command(*sweep, cwd=tmp_path, check=True)
    assert command(*sweep, cwd=tmp_path, check=True).stdout.count("as recorded") == 2
    weights.write_bytes(second.read_bytes())
    assert "as recorded" not in command(*sweep, cwd=tmp_path, check=True).stdout
    assert len({run.data.tags["parent"] for run in runs(tmp_path)}) == 2

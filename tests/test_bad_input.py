"""Bad input through the real command line: one line, exit status 2, nothing written."""

from pathlib import Path

import pytest

from tests.commandline import command

BAD_INPUT = {
    "unknown loss": (["loss=squentropi"], "Could not find 'loss/squentropi'"),
    "mistyped key": (["train.max_stps=5"], "Did you mean: 'max_steps'?"),
    "mistyped key of a component": (["loss=squentropy", "+loss.wieght=1"], "did you mean 'weight'?"),
    "wrong type": (["train.max_steps=many"], "train.max_steps=many"),
    "wrong type of a component": (["model.n_layer=2.5"], "model.n_layer: input should be a valid integer"),
    "missing file": (["data=text", "data.source.train=nowhere.txt"], "nowhere.txt"),
    "no file given": (["data=text"], "data.source.train"),
    "empty file": (["data=text", "data.source.train=empty.txt"], "empty.txt"),
    "one-token file": (["data=text", "data.source.train=one.txt"], "data.source"),
    "corpus shorter than a block": (["data.source.n_train=1", "model.block_size=100000"], "model.block_size"),
    "n_embd not divisible by n_head": (["model.n_embd=10", "model.n_head=3"], "n_embd=10 is not divisible by n_head=3"),
    "negative learning rate": (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
    "a checkpoint that is no checkpoint": (["resume=text.txt"], "text.txt is not a checkpoint"),
    "sweeper without -m": (["hydra/sweeper=grid"], "needs -m"),
    "unknown setting": (["+sede=3"], "unknown setting 'sede'"),
    "unknown device": (["device=tpu9"], "device=tpu9"),
    "a loss that is a mean": (["loss._target_=torch.nn.functional.cross_entropy"], "not one loss for each token"),
    "not a number": (["train.clip_norm=nan"], "train.clip_norm must be positive"),
    "a checkpoint folder that cannot be made": (["checkpoint_dir=text.txt"], "text.txt"),
    "unknown kind of window": (["data.window=here"], "data.window"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    arguments, message = BAD_INPUT[case]
    (tmp_path / "empty.txt").touch()
    (tmp_path / "one.txt").write_text("a")
    (tmp_path / "text.txt").write_text("Once upon a time")
    before = {*tmp_path.rglob("*")}
    result = command(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    left = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert not [path for path in left if path.suffix not in {".lock"} and "cache" not in path.parts], left
    # A corpus in the cache is useful for the next run, which may have a smaller block.
    if case not in {"corpus shorter than a block", "a checkpoint folder that cannot be made"}:
        assert not [path for path in left if path.suffix != ".lock"], left
        assert result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "--cfg", "hydra"], "Only one of"),
        (["--cfg", "job", "--info"], "Only one of"),
        (["-m", "--info", "defaults"], "Only one of"),
        (["-m", "--resolve"], "--resolve flag"),
        (["--cfg", "job", "--package", "nothing"], "package 'nothing' not found"),
    ],
)
def test_options_that_exclude_each_other_are_an_error_of_one_line(
    options: list[str], message: str, tmp_path: Path
) -> None:
    result = command(*options, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options", [["--cfg", "all", "--package", "hydra.job"], ["--cfg", "hydra", "--resolve"], ["--info", "defaults"]]
)
def test_options_that_show_the_configuration(options: list[str], tmp_path: Path) -> None:
    assert command(*options, cwd=tmp_path, check=True).stdout

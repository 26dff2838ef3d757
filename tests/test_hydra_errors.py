"""The end of the command line that trains, where Hydra ends before a run begins."""

import os
import subprocess
import sys
from pathlib import Path

from tests.commandline import ROOT, SMALL, command, environment, running


def test_a_reader_of_the_help_that_has_gone_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run = [sys.executable, str(ROOT / "run.py"), "--help"]
    result = subprocess.run(run, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_reader_that_has_gone_ends_a_sweep(tmp_path: Path) -> None:
    pipe, log = tmp_path / "pipe", tmp_path / "stderr"
    os.mkfifo(pipe)
    sweep = ["-m", "hydra/sweeper=grid", "hydra/launcher=basic", "loss=cross_entropy", "optimizer.lr=1e-3,2e-3"]
    with running("run.py", *sweep, *SMALL, "train.max_steps=2", cwd=tmp_path, stdout=pipe, stderr=log) as process:
        os.close(os.open(pipe, os.O_RDONLY))
    assert process.exitcode == 141
    assert "#0" in log.read_text()
    assert "#1" not in log.read_text()


def test_the_full_error_is_shown_on_request(tmp_path: Path) -> None:
    result = command("loss=null", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert "InputError: loss=null: choose loss=" in result.stderr


def test_an_error_of_this_program_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from nanosq import schema\ndef check(cfg):\n    raise KeyError('a bug')\nschema.check = check\n"
    )
    run = [sys.executable, str(ROOT / "run.py")]
    env = environment() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    result = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "KeyError: 'a bug'" in result.stderr

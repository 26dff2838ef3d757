"""The shared code of the benchmarks, and their command lines."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from analysis.benchmarks.lib.loss_methods import Case, Problem, measure_alone
from analysis.benchmarks.lib.measure import median_seconds
from analysis.benchmarks.lib.processes import Program
from analysis.benchmarks.lib.shapes import SHAPES
from analysis.benchmarks.lib.training_profile import time_shares
from analysis.benchmarks.lib.training_steps import MeasuredTrainer
from nanosq.hardware import Hardware

ROOT = Path(__file__).parents[3]
BENCHMARKS = sorted(path.stem for path in (ROOT / "analysis" / "benchmarks").glob("[a-z]*.py"))
CPU = Hardware(torch.device("cpu"))

SCRIPT = "print('begin')\nfor step in range(1, 4): print(f'step {step}/3')\nraise SystemExit({status})"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_has_an_example(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as exit_:
        importlib.import_module(f"analysis.benchmarks.{name}").main()
    assert exit_.value.code == 0
    assert f"\npython -m analysis.benchmarks.{name}" in capsys.readouterr().out


def test_memory_is_read_without_torch() -> None:
    script = (
        "import sys; from analysis.benchmarks.lib import memory; print(memory.peak_memory(), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    n_bytes, imported = result.stdout.split()
    assert 2**20 < int(n_bytes) < 2**30
    assert imported == "False"


def test_median_leaves_out_the_warmup() -> None:
    times = iter([100.0, 1.0, 3.0, 2.0])
    assert median_seconds({"a": lambda: next(times)}, rounds=3) == {"a": 2.0}


def program(folder: Path, status: int) -> Program:
    command = [sys.executable, "-c", SCRIPT.replace("{status}", str(status))]
    return Program(command, folder, begin="begin", step=r"step (\d+)/")


def test_output_of_a_program_is_returned_and_logged(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "program.log"
    seconds, output = program(tmp_path, 0).train(3, log=log)
    assert output == log.read_text() == "begin\nstep 1/3\nstep 2/3\nstep 3/3\n"
    assert seconds >= 0


def test_failure_of_a_program_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"failed: .*program\.log"):
        program(tmp_path, 1).train(3, log=tmp_path / "program.log")


def test_profile_finds_the_head() -> None:
    shares = time_shares(MeasuredTrainer("nanosq", "squentropy", CPU), SHAPES["tiny"])
    assert sum(shares.values()) == pytest.approx(1)
    assert {"matrix products, head", "matrix products, layers", "log-softmax and loss", "attention"} <= shares.keys()


def test_memory_of_a_loss_is_that_of_its_logits() -> None:
    """All logits in float32 and their gradient are 2 x 4 x N x V bytes."""
    n_tokens, n_classes = 1024, 8192
    measured = measure_alone(Case("cross_entropy", "all logits"), Problem(n_tokens, 16, n_classes, CPU))
    assert measured is not None
    assert 1 <= measured[0] / (4 * n_tokens * n_classes) <= 6

"""Training that does not fit into memory, through the real command line."""

from pathlib import Path

import pytest
import torch

from nanosq.errors import is_out_of_memory
from tests.commandline import SMALL, command

# Its size cannot be known from the configuration.
LOSS = """
import torch
from nanosq.loss_check import V
from nanosq.losses import cross_entropy

def greedy(logits_NV, targets_N):
    if logits_NV.shape[1] != V:
        torch.empty(2**55)
    return cross_entropy(logits_NV, targets_N)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(LOSS)
    return tmp_path


def test_a_run_names_what_needs_less_memory(folder: Path) -> None:
    result = command(*SMALL, "loss._target_=mine.greedy", "train.accumulate=3", "tracking=none", cwd=folder)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == (
        "error: out of memory: set train.batch_size=2 train.accumulate=6, which keeps the number of "
        "tokens in a step, or lower model.block_size, model.n_embd or model.n_layer"
    )


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("loss._target_=mine.greedy,nanosq.losses.cross_entropy", "error: out of memory"),
        (f"train.batch_size={10**13},1", "error: at least"),  # refused before anything is allocated
    ],
)
def test_a_trial_does_not_stop_the_others(axis: str, message: str, folder: Path) -> None:
    result = command(*SMALL, "-m", axis, "samples.count=0", "tracking=none", cwd=folder)
    assert result.returncode in (1, 2), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(message)
    lines = next(folder.glob("sweeps/*/trials.csv")).read_text().splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == ["failed", "finished"]


def test_failed_allocations_are_recognized() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

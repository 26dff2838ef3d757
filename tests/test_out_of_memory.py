"""Training that does not fit into memory, through the real command line."""

from pathlib import Path

import pytest
import torch

from nanosq.errors import is_out_of_memory
from tests.commandline import SMALL, command

TOO_MANY = 10**13  # windows


def test_a_run_names_what_needs_less_memory(tmp_path: Path) -> None:
    result = command(*SMALL, f"train.batch_size={TOO_MANY}", "train.accumulate=3", "tracking=none", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == (
        f"error: out of memory: set train.batch_size={TOO_MANY // 2} train.accumulate=6, which keeps the number of "
        "tokens in a step, or lower model.block_size, model.n_embd or model.n_layer"
    )


def test_a_trial_does_not_stop_the_others(tmp_path: Path) -> None:
    sweep = ["-m", f"train.batch_size={TOO_MANY},1", "samples.count=0"]
    result = command(*SMALL, *sweep, "tracking=none", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: out of memory")
    lines = next(tmp_path.glob("sweeps/*/trials.csv")).read_text().splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == ["failed", "finished"]


def test_failed_allocations_are_recognized() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

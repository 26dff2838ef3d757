import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanosq import checkpoint
from nanosq.model import GPT
from nanosq.optim import parameter_groups


def trained(seed: int, n_embd: int = 8) -> tuple[GPT, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = GPT(11, block_size=8, n_layer=1, n_head=2, n_embd=n_embd)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.1)
    model(torch.randint(11, (2, 8))).square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_restore_undoes_everything_since_the_snapshot(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    checkpoint.save(tmp_path / "last.pt", {**checkpoint.snapshot(model, optimizer), "step": 7})
    expected = torch.rand(3)

    other, other_optimizer = trained(1)
    state = checkpoint.load(tmp_path / "last.pt")
    checkpoint.restore(state, other, other_optimizer)
    assert state["step"] == 7
    torch.testing.assert_close(torch.rand(3), expected)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(other_optimizer.state[ours]["exp_avg"], optimizer.state[theirs]["exp_avg"])


def test_refuses_what_it_cannot_restore() -> None:
    model, optimizer = trained(0)
    with pytest.raises(ValueError, match="weights alone"):
        checkpoint.restore({"model": model.state_dict()}, model, optimizer)
    with pytest.raises(ValueError, match="another model"):
        checkpoint.restore(checkpoint.snapshot(model, optimizer), *trained(0, n_embd=4))


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_refuses_what_is_no_checkpoint_and_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.save(Path("whole.pt"), {"model": {"w": torch.zeros(1000)}})
    Path("truncated.pt").write_bytes(Path("whole.pt").read_bytes()[:2000])
    Path("empty.pt").touch()
    Path("text.pt").write_text("Once upon a time")
    Path("bomb.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"model": Bomb()}, "bomb2.pt")
    torch.save({"model": {}}, "foreign.pt")
    for name in ("missing", "truncated", "empty", "text", "bomb", "bomb2", "foreign"):
        with pytest.raises(ValueError, match=f"{name}.pt"):
            checkpoint.load(f"{name}.pt")
    assert not Path("exploded").exists()


def test_a_kill_during_saving_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 1})
    script = f"""
import os, signal, torch
from pathlib import Path
from nanosq import checkpoint
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save(Path({str(path)!r}), {{"step": 2, "w": torch.zeros(100_000)}})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert checkpoint.load(path)["step"] == 1


def test_a_failure_during_saving_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        checkpoint.save(tmp_path / "last.pt", {"function": lambda: None})
    assert list(tmp_path.iterdir()) == []

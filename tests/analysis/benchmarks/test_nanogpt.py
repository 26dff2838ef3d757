"""The interface to nanoGPT. Tests that need a real checkout take its folder from the variable NANOGPT."""

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from analysis.benchmarks.lib.loss_methods import LOSSES
from analysis.benchmarks.lib.nanogpt import (
    AUTOCAST,
    Checkout,
    WithListing,
    train_command,
    weights_for_nanogpt,
    weights_from_nanogpt,
)
from analysis.benchmarks.lib.parity import parity
from analysis.benchmarks.lib.shapes import SHAPES, batches
from analysis.benchmarks.lib.training_steps import MeasuredTrainer
from analysis.benchmarks.lib.workers import Worker, measure
from nanosq.hardware import Hardware
from nanosq.head import head_loss
from nanosq.model import GPT

CPU = torch.device("cpu")
SMALL = replace(SHAPES["tiny"], n_embd=32, vocab_size=97, batch_size=2, block_size=16)

MODEL = """
class GPTConfig: ...
class GPT:
    def configure_optimizers(self): ...
"""
TRAIN = """
learning_rate, warmup_iters, lr_decay_iters, min_lr = 1.0, 1, 1, 1.0
raise SystemExit("importing it trains")
def get_lr(it):
    return learning_rate * it / warmup_iters if it < warmup_iters else max(min_lr, math.cos(it / lr_decay_iters))
"""


def write_checkout(folder: Path, *, model: str = MODEL, train: str = TRAIN) -> Path:
    (folder / "model.py").write_text(model)
    (folder / "train.py").write_text(train)
    return folder


@pytest.fixture
def nanogpt() -> Checkout:
    if "NANOGPT" not in os.environ:
        pytest.skip("the variable NANOGPT does not name a checkout of karpathy/nanoGPT")
    return Checkout(Path(os.environ["NANOGPT"]))


def test_folder_without_nanogpt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a checkout of karpathy/nanoGPT: it has no model\.py"):
        Checkout(tmp_path)


@pytest.mark.parametrize(
    "files",
    [{"model": "class Net: ..."}, {"model": "import no_such_module"}, {"model": "syntax error"}, {"train": "lr = 1"}],
)
def test_folder_of_another_project_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is not a checkout of karpathy/nanoGPT"):
        Checkout(write_checkout(tmp_path, **files))


def test_schedule_is_read_without_training(tmp_path: Path) -> None:
    learning_rate = Checkout(write_checkout(tmp_path)).schedule(lr=0.5, warmup=10, max_steps=100, min_lr=0.25)
    assert learning_rate(4) == 0.5 * 4 / 10
    assert learning_rate(50) == math.cos(0.5)
    assert learning_rate(150) == 0.25


@pytest.mark.parametrize("bias", [False, True])
def test_weights_are_converted_in_both_directions(bias: bool) -> None:
    def model() -> GPT:
        return GPT(11, block_size=4, n_layer=12, n_head=2, n_embd=8, bias=bias)

    ours, another = model(), model()
    theirs = weights_for_nanogpt(ours)
    assert len(theirs) == len(ours.state_dict()) + 1
    assert theirs["lm_head.weight"].data_ptr() == theirs["transformer.wte.weight"].data_ptr()
    assert torch.equal(theirs["transformer.h.10.mlp.c_proj.weight"], ours.blocks[10].mlp.project.weight)
    compiled = {f"_orig_mod.{name}": weight for name, weight in theirs.items()}
    another.load_state_dict(weights_from_nanogpt(compiled, another))
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, another.state_dict()[name]), name


def test_bf16_of_train_py_is_autocast_on_a_cpu() -> None:
    """A file without `=` in its name is executed by nanoGPT's configurator.py, before the context is chosen."""
    names = {"torch": torch}
    exec(AUTOCAST, names)
    matrix = torch.ones(2, 2)
    with names["nullcontext"]():
        assert (matrix @ matrix).dtype == torch.bfloat16
    assert [word for word in train_command(dtype="bfloat16")[2:] if "=" not in word] == ["autocast_on_cpu.py"]
    assert all("=" in word for word in train_command(dtype="float32")[2:])


def test_both_projects_train_alike(nanogpt: Checkout) -> None:
    losses = parity(nanogpt, SMALL, 5, CPU, warmup=2, dtype=torch.float32)
    assert losses["nanosq"][4] < losses["nanosq"][0]
    assert losses["difference"].abs().max() < 1e-5


def test_listing_is_the_loss_squentropy_listing(nanogpt: Checkout) -> None:
    ours, theirs = GPT(**SMALL.sizes), nanogpt.model(**SMALL.sizes)
    theirs.load_state_dict(weights_for_nanogpt(ours))
    ((tokens_BT, targets_BT),) = batches(SMALL, 1, device=CPU)
    objective, _ = head_loss(LOSSES["squentropy_listing"], ours(tokens_BT), ours.head_weight, targets_BT)
    torch.testing.assert_close(WithListing(theirs)(tokens_BT, targets_BT)[1], objective)


@pytest.mark.slow
def test_projects_take_turns_in_processes_of_their_own(nanogpt: Checkout) -> None:
    pair = [MeasuredTrainer(project, "squentropy", Hardware(CPU, "bf16")) for project in ("nanosq", "nanoGPT")]
    costs = measure({contender: Worker(contender, SMALL, nanogpt.folder) for contender in pair}, rounds=2)
    assert [*costs] == pair
    assert all(cost.seconds > 0 for cost in costs.values())
    assert all(cost.peak_bytes > 0 for cost in costs.values())

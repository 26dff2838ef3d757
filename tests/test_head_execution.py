"""The head's ways of running a loss: memory, compilation, several processes, fused losses."""

import copy
import gc
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from nanosq import head, losses
from nanosq.head import head_loss
from nanosq.token_scores import token_scores
from tests.test_head import error, full, inputs
from tests.test_losses import loss_of


class LargestTensor(TorchFunctionMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = result if isinstance(result, tuple | list) else [result]
        self.numel = max([self.numel, *(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor))])
        return result


def test_logits_exist_for_one_chunk_at_a_time() -> None:
    hidden_ND, weight_VD, targets_N = inputs(400, 5, 100)
    with LargestTensor() as largest:
        head_loss(loss_of("squentropy"), hidden_ND, weight_VD, targets_N, chunk_size=30)[0].backward()
    assert largest.numel == 29 * 100  # 14 chunks of about equal size


@pytest.mark.parametrize("name", ["cross_entropy", "squentropy", "brier"])
def test_compiled_gives_the_same_numbers(name: str) -> None:
    hidden_ND, weight_VD, targets_N = inputs(50, 8, 300)
    targets_N[3] = -1
    weight_VD = weight_VD.detach().bfloat16().float().requires_grad_()
    results = []
    for compile in (False, True):
        objective, nll = head_loss(loss_of(name), hidden_ND, weight_VD, targets_N, chunk_size=20, compile=compile)
        scores = token_scores(loss_of(name), hidden_ND, weight_VD, targets_N, chunk_size=20, compile=compile)
        results.append((objective, nll, *torch.autograd.grad(objective, (hidden_ND, weight_VD)), *scores))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["brier", "focal", "squentropy", "cross_entropy"])
def test_float16_gradients_are_scaled_before_they_are_rounded(name: str) -> None:
    """The gradient of brier is about 1 / C for each token: float16 rounds it to zero."""
    hidden_ND, weight_VD, targets_N = inputs(64, 32, 50_304)
    weight_VD = weight_VD.detach().mul(0.1).requires_grad_()
    exact = torch.autograd.grad(full(loss_of(name), hidden_ND, weight_VD, targets_N)[0], (hidden_ND, weight_VD))
    scale = torch.tensor(2.0**16)
    with torch.autocast("cpu", dtype=torch.float16):
        objective, _ = head_loss(loss_of(name), hidden_ND, weight_VD, targets_N, scale=scale)
    scaled = torch.autograd.grad(objective * scale, (hidden_ND, weight_VD))
    assert max(error(ours / scale, true) for ours, true in zip(scaled, exact, strict=True)) <= 1e-3


@pytest.mark.parametrize("name", ["brier", "squentropy", "cross_entropy"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_scale_changes_no_bit_of_other_types(name: str, dtype: torch.dtype) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    hidden_ND, weight_VD, targets_N = inputs(50, 8, 300, dtype=wide)
    targets_N[3] = -1
    results = []
    for scale in (None, torch.tensor(3.0)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            objective, nll = head_loss(loss_of(name), hidden_ND, weight_VD, targets_N, chunk_size=20, scale=scale)
        results.append((objective, nll, *torch.autograd.grad(objective / 3, (hidden_ND, weight_VD))))
    assert all(torch.equal(*values) for values in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["brier", "cross_entropy"])
@pytest.mark.parametrize("compile", [False, True])
def test_a_loss_is_prepared_for_speed_only_if_that_is_wanted(
    name: str, compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = []

    def note(function: Any) -> Any:
        prepared.append(function)
        return function

    monkeypatch.setattr(head, "compiled", note)
    head_loss(loss_of(name), *inputs(5, 4, 6), compile=compile)
    assert len(prepared) == compile


def test_chunks_and_tiles_cover_their_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden_ND, weight_VD, _ = inputs(10, 2, 7)
    monkeypatch.setattr(head, "CHUNK_LOGITS", 3 * 7 + 6)  # of three tokens: 10 tokens are four chunks, of three at most
    found = list(head.chunks(hidden_ND.detach(), weight_VD.detach(), None))
    assert [tokens for tokens, _ in found] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]
    monkeypatch.setattr(head, "TILE_LOGITS", 7)
    monkeypatch.setattr(head, "COMPILED_TILE_LOGITS", 5 * 7 + 6)
    n = torch.get_num_threads()
    logits_CV = torch.empty(2 * n + 1, 7)
    assert [*head.tiles(logits_CV, False)] == [slice(0, n), slice(n, 2 * n), slice(2 * n, 2 * n + 1)]
    assert [*head.tiles(torch.empty(11, 7), True)] == [slice(0, 5), slice(5, 10), slice(10, 11)]
    assert [*head.tiles(torch.empty(0, 7), True)] == [slice(0, 0)]
    monkeypatch.setattr(head, "COMPILED_TILE_LOGITS", 6)  # less than one row
    assert [*head.tiles(torch.empty(2, 7), True)] == [slice(0, 1), slice(1, 2)]


class TinyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 4)
        self.mix = nn.Linear(4, 4)

    def forward(self, tokens_N: Tensor) -> Tensor:
        return self.mix(self.embedding(tokens_N))


def distributed_step(rank: int, rendezvous: str, tokens_N: Tensor, expected: dict[str, Tensor]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    model = DistributedDataParallel(TinyModel())
    share_N = tokens_N[rank::2]
    objective, _ = head_loss(
        loss_of("squentropy"), model(share_N), model.module.embedding.weight, share_N, chunk_size=3
    )
    objective.backward()
    for name, parameter in model.module.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
    del model, parameter
    gc.collect()  # as in nanosq.distributed.processes
    dist.destroy_process_group()


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    """The weight is used inside the forward pass of DistributedDataParallel, as embedding, and outside, in the head."""
    model, tokens_N = TinyModel(), torch.arange(10)
    full(loss_of("squentropy"), model(tokens_N), model.embedding.weight, tokens_N)[0].backward()
    expected = {name: copy.deepcopy(parameter.grad) for name, parameter in model.named_parameters()}
    torch.multiprocessing.spawn(distributed_step, (str(tmp_path / "rendezvous"), tokens_N, expected), nprocs=2)


def plain(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return losses.cross_entropy(logits_NV, targets_N)


@wraps(losses.cross_entropy)
def wrapper(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return losses.cross_entropy(logits_NV, targets_N)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (losses.cross_entropy, True),
        (partial(losses.cross_entropy), True),
        (wrapper, True),
        (plain, False),
        (losses.squentropy, False),
        (partial(losses.squentropy, weight=0.0), False),
    ],
)
def test_the_fused_form_is_found_through_partials_and_wrappers(loss: losses.Loss, expected: bool) -> None:
    assert (losses.fused_form(loss) is not None) == expected
    hidden_ND, weight_VD, targets_N = inputs(12, 5, 7)
    exact = full(loss, hidden_ND, weight_VD, targets_N)
    actual = head_loss(loss, hidden_ND, weight_VD, targets_N)
    assert error(torch.stack(actual), torch.stack(exact)) <= 1e-5

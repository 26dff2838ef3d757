import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nanosq import config
from nanosq.model import GPT
from nanosq.optim import Muon, constant, cosine, cosine_from_zero, orthogonalized, parameter_groups, warmup_stable_decay

CONF = Path(__file__).parents[1] / "conf"


def nanogpt_lr(it: int, *, old: bool, warmup: int, decay: int, lr: float, min_lr: float) -> float:
    """The schedule of nanoGPT before and after 2024-12-09, as its formulas read."""
    if it < warmup:
        return lr * it / warmup if old else lr * (it + 1) / (warmup + 1)
    if it > decay:
        return min_lr
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * (it - warmup) / (decay - warmup))) * (lr - min_lr)


@pytest.mark.parametrize(("schedule", "old"), [(cosine, False), (cosine_from_zero, True)])
@pytest.mark.parametrize("step", [0, 1, 99, 100, 101, 550, 999, 1000, 1200])
def test_schedule_is_nanogpts(schedule, old: bool, step: int) -> None:
    factor = schedule(step, max_steps=1000, warmup=100, min_lr_factor=0.1)
    expected = nanogpt_lr(step, old=old, warmup=100, decay=1000, lr=1.0, min_lr=0.1)
    assert factor == pytest.approx(expected)


def test_the_27_trials_of_the_report_end_inside_their_warmup() -> None:
    factors = [cosine_from_zero(step, max_steps=20_000, warmup=2000, min_lr_factor=0.1) for step in range(50)]
    assert factors[0] == 0.0
    assert max(factors) == pytest.approx(0.0245)


def test_no_warmup() -> None:
    assert cosine(0, max_steps=10, warmup=0, min_lr_factor=0.0) == 1.0


def test_weight_decay_touches_matrices_only() -> None:
    model = GPT(11, block_size=8, n_layer=1, n_head=2, n_embd=8, bias=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if parameter.dim() == 2 else 1.0
        torch.testing.assert_close(parameter, factor * before[name])


def gradients(model: GPT, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def small_model() -> GPT:
    torch.manual_seed(0)
    return GPT(11, block_size=8, n_layer=2, n_head=2, n_embd=8, bias=True)


def test_muon_is_torchs_muon_on_hidden_matrices_and_torchs_adamw_on_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # torch's rounds what it multiplies
    ours, theirs = small_model(), small_model()
    optimizer = Muon(parameter_groups(ours), lr=0.01, momentum=0.9, betas=(0.8, 0.9), weight_decay=0.3)
    hidden = [p for name, p in theirs.named_parameters() if p.dim() == 2 and "embedding" not in name]
    embeddings = [p for name, p in theirs.named_parameters() if "embedding" in name]
    vectors = [p for p in theirs.parameters() if p.dim() == 1]
    references = (
        torch.optim.Muon(hidden, lr=0.01, momentum=0.9, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(embeddings, lr=0.01, betas=(0.8, 0.9), weight_decay=0.3),
        torch.optim.AdamW(vectors, lr=0.01, betas=(0.8, 0.9), weight_decay=0.0),
    )
    assert sum(map(len, (hidden, embeddings, vectors))) == len(list(theirs.parameters()))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for step in range(3):
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step()
        for reference in references:
            reference.param_groups[0]["lr"] = 0.01 * 0.5**step
            reference.step()
        schedule.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 32)])
def test_orthogonalized_keeps_singular_vectors_and_makes_singular_values_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linspace(1.0, 0.05, len(values))
    matrix = left @ values.diag() @ right
    made = left.T @ orthogonalized(matrix) @ right.T
    assert made.diag().min() > 0.5
    assert made.diag().max() < 1.5
    torch.testing.assert_close(made, made.diag().diag(), rtol=0, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = orthogonalized(matrix)
    assert rounded.dtype is torch.bfloat16
    torch.testing.assert_close(rounded.float(), orthogonalized(matrix), rtol=0, atol=0.05)


def test_muon_leaves_weights_without_a_gradient_alone_and_stands_a_gradient_of_zero() -> None:
    model = small_model()
    gradients(model, 0)
    without, zero = model.blocks[0].mlp.expand.weight, model.blocks[1].mlp.expand.weight
    without.grad = None
    zero.grad = torch.zeros_like(zero)
    before, after = without.clone(), zero * (1 - 0.01 * 0.1)
    Muon(parameter_groups(model), lr=0.01, weight_decay=0.1).step()
    assert torch.equal(without, before)
    torch.testing.assert_close(zero, after)


def test_muon_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="momentum"):
        Muon(parameter_groups(small_model()), momentum=1.0)
    with pytest.raises(ValueError, match=r"\(2, 1, 3\)"):
        Muon(parameter_groups(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(1, 1))))


def test_muon_goes_on_from_its_state() -> None:
    models = small_model(), small_model()
    optimizers = [Muon(parameter_groups(model), lr=0.01) for model in models]
    for optimizer, model in zip(optimizers, models, strict=True):
        gradients(model, 0)
        optimizer.step()
    optimizers[1] = Muon(parameter_groups(models[1]), lr=0.5)
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))  # else both share their buffers
    for optimizer, model in zip(optimizers, models, strict=True):
        gradients(model, 1)
        optimizer.step()
    torch.testing.assert_close(list(models[1].parameters()), list(models[0].parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("schedule", [constant, warmup_stable_decay, cosine])
def test_warmup_is_the_same_in_every_schedule(schedule: Callable[..., float]) -> None:
    factors = [schedule(step, max_steps=100, warmup=9, min_lr_factor=0.1) for step in range(10)]
    assert factors == pytest.approx([0.1 * (step + 1) for step in range(10)])


def test_constant_stays_and_stable_decays() -> None:
    assert [constant(step, max_steps=100, warmup=9, min_lr_factor=0.1) for step in (10, 99)] == [1.0, 1.0]
    stable = [warmup_stable_decay(step, max_steps=100, warmup=9, min_lr_factor=0.1, decay=0.4) for step in range(101)]
    assert stable[9:61] == [1.0] * 52
    assert stable[80] == pytest.approx(0.55)
    assert stable[100] == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"schedule\.decay"):
        warmup_stable_decay(0, max_steps=100, warmup=9, min_lr_factor=0.1, decay=0.0)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("optimizer/*.yaml")))
def test_every_optimizer_of_conf_learns_and_decays_no_vectors(name: str) -> None:
    torch.manual_seed(0)
    model = GPT(11, block_size=8, n_layer=1, n_head=2, n_embd=16)
    optimizer = config.load(CONF / f"optimizer/{name}.yaml")(parameter_groups(model))
    assert [group["weight_decay"] for group in optimizer.param_groups if group["kind"] == "vector"] == [0.0]
    tokens_BT = torch.arange(8).repeat(4, 1)

    def step() -> float:
        logits_BTV = model(tokens_BT) @ model.head_weight.T
        nll = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.roll(-1, 1).flatten())
        optimizer.zero_grad()
        nll.backward()
        optimizer.step()
        return nll.item()

    nlls = [step() for _ in range(30)]
    assert nlls[-1] < nlls[0] - 0.5

"""GPT-2 compared with its equations and its published sizes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanosq.model import GPT


def count(model: GPT) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("n_layer", "expected"), [(8, 95.3), (12, 123.6), (16, 151.9)])
def test_parameters_of_the_report(n_layer: int, expected: float) -> None:
    """In millions without positions, as nanoGPT counts them, with a vocabulary of 50,304 and no biases."""
    with torch.device("meta"):
        model = GPT(50304, block_size=1024, n_layer=n_layer, n_head=12, n_embd=768)
    assert (count(model) - 1024 * 768) / 1e6 == pytest.approx(expected, abs=0.05)


def test_parameters_of_gpt2() -> None:
    with torch.device("meta"):
        model = GPT(50257, block_size=1024, n_layer=12, n_head=12, n_embd=768, bias=True)
    assert count(model) == 124_439_808


def test_hidden_states_equal_those_of_the_written_out_equations() -> None:
    """The forward pass is written out with loops over heads and uses the weights of the model."""
    torch.manual_seed(0)
    model = GPT(11, block_size=6, n_layer=2, n_head=2, n_embd=8, bias=True).double()
    for parameter in model.parameters():  # no weight stays at zero or one, where a missing term would not show
        torch.nn.init.normal_(parameter, std=0.5)
    w = dict(model.named_parameters())
    tokens_BT = torch.randint(11, (3, 5))

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["token_embedding.weight"][tokens_BT] + w["position_embedding.weight"][:5]
    for layer in ("blocks.0", "blocks.1"):
        q, k, v = linear(norm(x, f"{layer}.attention_norm"), f"{layer}.attention.query_key_value").split(8, dim=-1)
        mixed = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = q[..., head] @ k[..., head].transpose(1, 2) / math.sqrt(4)
            scores = scores.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -math.inf)
            mixed.append(scores.softmax(-1) @ v[..., head])
        x = x + linear(torch.cat(mixed, dim=-1), f"{layer}.attention.project")
        x = x + linear(F.gelu(linear(norm(x, f"{layer}.mlp_norm"), f"{layer}.mlp.expand")), f"{layer}.mlp.project")
    torch.testing.assert_close(model(tokens_BT), norm(x, "final_norm"))


def test_a_token_does_not_see_the_future() -> None:
    torch.manual_seed(0)
    model = GPT(11, block_size=8, n_layer=2, n_head=2, n_embd=8)
    tokens_BT = torch.randint(11, (1, 8))
    changed = tokens_BT.clone()
    changed[0, 5:] = (changed[0, 5:] + 1) % 11
    before, after = model(tokens_BT), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("lengths", [(1,) * 8, (8,), (3, 1, 2, 1, 1), (5, 3)])
def test_a_cache_replaces_the_tokens_before(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = GPT(11, block_size=8, n_layer=2, n_head=2, n_embd=8, embedding_std=1.0).double().eval()
    tokens_BT = torch.randint(11, (3, 8))
    cache = model.new_cache()
    parts = [model(part_BT, cache) for part_BT in tokens_BT.split(lengths, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens_BT))
    with pytest.raises(AssertionError, match="the window is full"):
        model(tokens_BT[:, :1], cache)


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = GPT(500, block_size=64, n_layer=8, n_head=4, n_embd=64, bias=True)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert torch.count_nonzero(parameter) == 0, name
        elif "norm" in name:
            assert torch.all(parameter == 1), name
        else:
            std = 0.02 / math.sqrt(16) if "project" in name else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name


def test_embedding_std_changes_only_the_token_embedding() -> None:
    models = []
    for change in ({}, {"embedding_std": 0.1}):
        torch.manual_seed(0)
        models.append(GPT(500, block_size=8, n_layer=1, n_head=2, n_embd=8, **change))
    plain, scaled = (model.state_dict() for model in models)
    torch.testing.assert_close(plain.pop("token_embedding.weight") * 5, scaled.pop("token_embedding.weight"))
    torch.testing.assert_close(plain, scaled, rtol=0, atol=0)


def test_dropout_is_used_in_training_only() -> None:
    model = GPT(11, block_size=8, n_layer=1, n_head=2, n_embd=8, dropout=0.5)
    tokens_BT = torch.randint(11, (1, 8))
    assert not torch.allclose(model(tokens_BT), model(tokens_BT))
    model.eval()
    torch.testing.assert_close(model(tokens_BT), model(tokens_BT))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="n_embd=8 is not divisible by n_head=3"):
        GPT(11, block_size=8, n_layer=1, n_head=3, n_embd=8)

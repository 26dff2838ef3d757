"""The fitted temperature, compared with that of scipy for the logits in float64."""

import math
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor

from nanosq import evaluation, losses, temperature
from nanosq.data.batches import evaluation_windows
from nanosq.data.corpus import Split
from nanosq.evaluation import Batches, Evaluator
from nanosq.hardware import Hardware
from nanosq.head import head_loss
from nanosq.model import GPT
from nanosq.temperature import MAX_TEMPERATURE, MIN_TEMPERATURE, Pass, fit_temperature, minimize, score_at
from tests.test_evaluation import Lookup

CPU = Hardware(torch.device("cpu"))
V = 11


def split_of(documents: Iterable[Iterable[int]]) -> Split:
    """Return a split of documents without token 0, the end of text."""
    parts = [np.array([*document, 0], np.uint16) for document in documents]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    sizes = np.array([len(part) - 1 for part in parts])
    return Split(np.concatenate([[0], *parts]).astype(np.uint16), starts, sizes, int(sizes.sum()), -1.0)


def noisy_split(n: int = 60) -> Split:
    """Return documents in which three of five tokens are followed by the next one."""
    rng = np.random.default_rng(0)
    documents = []
    for length in rng.integers(2, 20, size=n):
        tokens = rng.integers(1, V, size=length)
        for i in range(1, length):
            tokens[i] = tokens[i - 1] % (V - 1) + 1 if rng.random() < 0.6 else tokens[i]
        documents.append(tokens)
    return split_of(documents)


@cache
def trained(loss: losses.Loss) -> GPT:
    """Return a model that has been trained for a short time."""
    torch.manual_seed(0)
    model, split = GPT(V, block_size=32, n_layer=1, n_head=1, n_embd=16), noisy_split()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for tokens_BT, targets_BT, _ in [*evaluation_windows(split, block_size=32, batch_size=20)] * 20:
        optimizer.zero_grad()
        head_loss(loss, model(tokens_BT), model.head_weight, targets_BT)[0].backward()
        optimizer.step()
    return model


def all_logits(model: GPT | Lookup, split: Split) -> tuple[Tensor, Tensor]:
    """Return the logits and targets of all tokens, one document at a time, in float64."""
    logits, targets = [], []
    for begin, end in zip(split.starts[:-1], split.starts[1:], strict=True):
        tokens_T = torch.from_numpy(split.tokens[begin : end + 1].astype(np.int64))
        with torch.no_grad():
            hidden_TD = model(tokens_T[None, :-1])[0]
        logits.append(hidden_TD.double() @ model.head_weight.double().T)
        targets.append(tokens_T[1:])
    return torch.cat(logits).detach(), torch.cat(targets)


def best(logits_NV: Tensor, targets_N: Tensor) -> tuple[float, float]:
    """Return the best temperature and its nll, found by scipy."""

    def nll(temperature: float) -> float:
        return F.cross_entropy(logits_NV / temperature, targets_N).item()

    found = optimize.minimize_scalar(nll, bounds=(0.05, 50), method="bounded", options={"xatol": 1e-10})
    return found.x, found.fun


def slope_at(scale: float, logits_NV: Tensor, targets_N: Tensor) -> tuple[float, float]:
    p_NV = (scale * logits_NV).softmax(dim=-1)
    mean_N = (p_NV * logits_NV).sum(dim=-1)
    slope = (mean_N - logits_NV.gather(1, targets_N[:, None])[:, 0]).mean()
    return slope.item(), ((p_NV * logits_NV.square()).sum(dim=-1) - mean_N.square()).mean().item()


@pytest.mark.parametrize("kept_bytes", [2**28, 0])
@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.squentropy])
def test_temperature_and_scores_are_those_of_scipy(
    loss: losses.Loss, kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "KEPT_BYTES", kept_bytes)
    model, split = trained(loss), noisy_split()
    evaluator = Evaluator(model, loss, CPU, batch_size=4)
    found = fit_temperature(evaluator, Batches(evaluator, split))
    logits_NV, targets_N = all_logits(model, split)
    expected, nll = best(logits_NV, targets_N)
    assert found.temperature == pytest.approx(expected, abs=1e-6)
    assert found.nll == pytest.approx(nll, abs=1e-6)
    assert model.training

    scored = score_at(found.temperature, evaluator, evaluator.batches(split))
    assert scored.metrics("val") == pytest.approx(found.metrics("val"), abs=1e-6)
    p_NV = (logits_NV / expected).softmax(dim=-1)
    confidence_N, guess_N = p_NV.max(dim=-1)
    gap_N = (guess_N == targets_N).double() - confidence_N
    bin_N = (confidence_N * 15).ceil()
    ece = sum(gap_N[bin_N == bin].sum().abs().item() for bin in range(1, 16)) / len(gap_N)
    assert found.ece == pytest.approx(ece, abs=1e-5)
    assert found.nll < evaluator.score(split).score.nll


def test_few_passes_see_the_whole_split(monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[tuple[int, float]] = []
    original = temperature.scaled_scores

    def counted(scale: float, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> object:
        scales.append((len(hidden_ND), scale))
        return original(scale, hidden_ND, weight_VD, targets_N)

    monkeypatch.setattr(temperature, "scaled_scores", counted)
    split = noisy_split(400)
    evaluator = Evaluator(trained(losses.squentropy), losses.squentropy, CPU, batch_size=4)
    fit_temperature(evaluator, Batches(evaluator, split))
    n_tokens = len(split.tokens) - 1
    assert sum(n for n, _ in scales) <= 5 * n_tokens


@pytest.mark.parametrize("kept_bytes", [2**28, 0])
def test_a_signal_ends_a_pass(kept_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "KEPT_BYTES", kept_bytes)
    n_batches = 0

    def stop() -> None:
        nonlocal n_batches
        n_batches += 1
        if n_batches > 17:  # the split has 15 batches
            raise KeyboardInterrupt

    evaluator = Evaluator(trained(losses.cross_entropy), losses.cross_entropy, CPU, batch_size=4, before_batch=stop)
    with pytest.raises(KeyboardInterrupt):
        fit_temperature(evaluator, Batches(evaluator, noisy_split()))
    assert n_batches == 18


def successors(step: int, size: float) -> Lookup:
    """Return a model that is sure that each token is followed by the one `step` later."""
    return Lookup(size * torch.eye(V).roll(step, dims=1))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Lookup(torch.ones(V, V)), 1.0),  # the nll does not depend on the temperature
        (successors(1, 0.3), MIN_TEMPERATURE),  # always right: the more confident, the better
        (successors(1, 300.0), 1.0),  # always right, and certain
        (successors(2, 0.3), MAX_TEMPERATURE),  # always wrong
        (successors(2, 1e4), MAX_TEMPERATURE),
    ],
)
def test_without_an_optimum_the_temperature_is_a_limit(model: Lookup, expected: float) -> None:
    split = split_of([range(1, V)] * 20)
    model.block_size = V
    evaluator = Evaluator(model, losses.cross_entropy, CPU, batch_size=2)
    found = fit_temperature(evaluator, Batches(evaluator, split))
    assert found.temperature == pytest.approx(expected)
    plain = evaluator.score(split).score.nll
    assert found.nll <= plain + 1e-6


@given(st.data())
def test_newton_finds_the_optimum_from_anywhere(data: st.DataObject) -> None:
    """Sizes and errors of the logits over orders of magnitude, in float64."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    N, C = data.draw(st.integers(2, 200)), data.draw(st.integers(2, 30))
    size, start = 10 ** data.draw(st.floats(-2, 2)), 10 ** data.draw(st.floats(-2, 2))
    logits_NV = torch.from_numpy(rng.standard_normal((N, C)))
    p_NV = (data.draw(st.floats(0, 5)) * logits_NV).softmax(dim=-1).numpy()
    targets_N = torch.from_numpy(np.array([rng.choice(C, p=p) for p in p_NV]))
    logits_NV = logits_NV * size
    scales = []

    def pass_at(scale: float) -> Pass:
        scales.append(scale)
        return Pass(math.nan, math.nan, *slope_at(scale, logits_NV, targets_N))

    scale, _ = minimize(pass_at, start)
    assert len(scales) <= 25
    assert scale == pytest.approx(scales[-1], rel=1e-6)
    low, high = (slope_at(limit, logits_NV, targets_N)[0] for limit in (1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE))
    if low >= 0:
        assert scale == 1 / MAX_TEMPERATURE
    elif high < -1e-12:
        assert scale == 1 / MIN_TEMPERATURE
    elif high > 1e-12:
        root = optimize.brentq(lambda b: slope_at(b, logits_NV, targets_N)[0], 0.01, 100, xtol=1e-12)
        assert scale == pytest.approx(root, rel=2e-6)

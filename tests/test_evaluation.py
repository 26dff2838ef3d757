import math
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nanosq import distributed, losses
from nanosq import evaluation as evaluation_module
from nanosq.data.corpus import Split
from nanosq.evaluation import Batches, Evaluation, Evaluator, Score, ScoredTokens, WindowBatch, evaluating
from nanosq.hardware import Hardware
from nanosq.model import GPT

CPU = Hardware(torch.device("cpu"))


class Lookup(nn.Module):
    """A model whose logits after a token are a row of a table."""

    def __init__(self, table_VV: Tensor) -> None:
        super().__init__()
        self.table_VV = table_VV
        self.head_weight = torch.eye(len(table_VV))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.table_VV[tokens_BT]


class FixedWindows(Evaluator):
    """An evaluator of splits that consist of their windows."""

    def windows(self, split: Any, *, every: int = 1) -> Iterator[WindowBatch]:
        return iter(split.windows)


def evaluation(model, loss, windows, *, n_documents, n_bytes=1, log_probability=math.nan) -> Evaluation:
    size = {"document_bytes": [0] * n_documents, "n_bytes": n_bytes}
    split: Any = SimpleNamespace(windows=windows, **size, log_probability=log_probability)
    return FixedWindows(model, loss, CPU, batch_size=0).score(split)


def evaluate(model, loss, windows, **arguments) -> Score:
    """The score of windows that are documents of their own."""
    numbered, n = [], 0
    for tokens_BT, targets_BT in windows:
        numbered.append((tokens_BT, targets_BT, torch.arange(n, n + len(tokens_BT))))
        n += len(tokens_BT)
    return evaluation(model, loss, numbered, n_documents=n, **arguments).score


def test_score_of_known_probabilities() -> None:
    """After token 0 the model is right with 0.75 and says so; after token 1 it says 0.5 and is always right."""
    table = torch.tensor([[0.75, 0.25, 1e-30], [0.25, 0.5, 0.25], [1.0, 1.0, 1.0]]).log()
    tokens_BT = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    targets_BT = torch.tensor([[0, 0, 0, 1], [1, 1, 1, -1]])
    score = evaluate(Lookup(table), losses.cross_entropy, [(tokens_BT, targets_BT)], n_bytes=10, log_probability=-3.5)
    nats = -(3 * math.log(0.75) + math.log(0.25) + 3 * math.log(0.5))
    assert score.nll == pytest.approx(nats / 7)
    assert score.loss == pytest.approx(score.nll)
    assert score.perplexity == pytest.approx(math.exp(nats / 7))
    assert score.bits_per_byte == pytest.approx(nats / math.log(2) / 10)
    assert score.accuracy == pytest.approx(6 / 7)
    assert score.ece == pytest.approx((4 * abs(3 / 4 - 0.75) + 3 * abs(1 - 0.5)) / 7, abs=1e-6)
    assert score.floor_nll == pytest.approx(0.5)
    assert score.metrics("val")["val/excess_nll"] == pytest.approx(nats / 7 - 0.5)


def test_unknown_floor_is_not_logged() -> None:
    tokens_BT = torch.zeros(1, 2, dtype=torch.long)
    score = evaluate(Lookup(torch.zeros(2, 2)), losses.cross_entropy, [(tokens_BT, tokens_BT)], n_bytes=2)
    assert set(score.metrics("test")) == {
        f"test/{name}" for name in ("loss", "nll", "perplexity", "bits_per_byte", "accuracy", "ece")
    }


def test_loss_is_the_objective_and_nll_is_not() -> None:
    tokens_BT = torch.tensor([[0, 1, 0]])
    model = Lookup(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    score = evaluate(model, losses.squentropy, [(tokens_BT, tokens_BT)], n_bytes=3)
    logits_NV = model(tokens_BT)[0]
    assert score.loss == pytest.approx(losses.squentropy(logits_NV, tokens_BT[0]).mean().item())
    assert score.nll == pytest.approx(losses.cross_entropy(logits_NV, tokens_BT[0]).mean().item())


def test_overflow_is_infinite_perplexity() -> None:
    model = Lookup(torch.tensor([[2000.0, 0.0], [0.0, 0.0]]))
    tokens_BT, targets_BT = torch.tensor([[0]]), torch.tensor([[1]])
    score = evaluate(model, losses.cross_entropy, [(tokens_BT, targets_BT)], n_bytes=1)
    assert score.nll == pytest.approx(2000.0)
    assert score.perplexity == math.inf


def test_ece_against_a_loop_over_tokens() -> None:
    torch.manual_seed(0)
    model = Lookup(2 * torch.randn(6, 6))
    tokens_BT, targets_BT = torch.randint(6, (20, 30)), torch.randint(6, (20, 30))
    score = evaluate(model, losses.cross_entropy, [(tokens_BT, targets_BT)], n_bytes=1)
    bins = [SimpleNamespace(n=0, correct=0, confidence=0.0) for _ in range(15)]
    for p, y in zip(model(tokens_BT).flatten(0, 1).softmax(-1), targets_BT.flatten(), strict=True):
        bin = bins[math.ceil(p.max().item() * 15) - 1]
        bin.n, bin.correct, bin.confidence = bin.n + 1, bin.correct + (p.argmax() == y).item(), bin.confidence + p.max()
    ece = sum(abs(bin.correct - bin.confidence) for bin in bins) / 600
    assert score.ece == pytest.approx(float(ece), abs=1e-6)


def test_batch_size_changes_nothing_and_dropout_is_off() -> None:
    torch.manual_seed(0)
    model = GPT(11, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.5)
    tokens_BT, targets_BT = torch.randint(11, (12, 8)), torch.randint(-1, 11, (12, 8))
    whole = evaluate(model, losses.squentropy, [(tokens_BT, targets_BT)], n_bytes=50)
    rows = zip(tokens_BT.split(1), targets_BT.split(1), strict=True)
    single = evaluate(model, losses.squentropy, rows, n_bytes=50)
    assert single.metrics("val") == pytest.approx(whole.metrics("val"), rel=1e-6)
    assert model.training


def test_documents_and_targets_add_up_to_the_split_whatever_the_windows() -> None:
    torch.manual_seed(0)
    model = Lookup(torch.randn(6, 6))
    tokens_BT, targets_BT = torch.randint(6, (20, 30)), torch.randint(-1, 6, (20, 30))
    document_B = torch.randint(7, (20,))
    windows = zip(tokens_BT.split(3), targets_BT.split(3), document_B.split(3), strict=True)
    found = evaluation(model, losses.squentropy, windows, n_documents=7, n_bytes=1)
    log_p_BTV = model(tokens_BT).log_softmax(-1).double()
    for document in range(7):
        rows = (document_B == document)[:, None] & (targets_BT >= 0)
        nll = -log_p_BTV[rows].gather(1, targets_BT[rows][:, None]).sum()
        assert found.document_nll[document].item() == pytest.approx(nll.item(), rel=1e-6)
    for target in range(6):
        nll_N = -log_p_BTV[targets_BT == target][:, target]
        assert found.target_nll[:, target].tolist() == pytest.approx([len(nll_N), nll_N.sum().item()], rel=1e-6)
    n = int((targets_BT >= 0).sum())
    assert found.document_nll.sum().item() / n == pytest.approx(found.score.nll, abs=1e-12)
    assert found.bins[0].sum() == n
    assert found.bins[1].sum().item() / n == pytest.approx(found.score.accuracy)


@pytest.fixture
def small() -> tuple[Evaluator, Split, list[None]]:
    """An evaluator of a tiny model, a split, and a list that grows with every batch."""
    calls: list[None] = []
    starts = np.array([0, 9, 14, 30])
    tokens = np.arange(31, dtype=np.uint16) % 11
    split = Split(tokens, starts, np.diff(starts) - 1, 27, math.nan)
    model = GPT(11, block_size=4, n_layer=1, n_head=1, n_embd=8)
    evaluator = Evaluator(model, losses.cross_entropy, CPU, batch_size=2, before_batch=lambda: calls.append(None))
    return evaluator, split, calls


def n_targets(found: Iterable[ScoredTokens]) -> int:
    return sum(len(batch.targets_N) for batch in found)


def test_every_token_is_in_a_batch_or_in_one_of_several_processes(
    small: tuple[Evaluator, Split, list[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, split, calls = small
    with evaluating(evaluator.model, CPU):
        n_batches = len([*evaluator.batches(split)])
        assert len(calls) == n_batches > 4
        assert n_targets(evaluator.batches(split)) == n_targets(Batches(evaluator, split)()) == 30
        third = n_targets(evaluator.batches(split, every=3))
        assert 0 < third < 30
        calls.clear()
        monkeypatch.setattr(distributed, "world_size", lambda: 3)
        found = []
        for rank in range(3):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            found.append(n_targets(evaluator.batches(split)))
        assert (found[0], sum(found)) == (third, 30)
        assert not calls  # a signal is not handled there


def test_small_hidden_states_are_computed_once(
    small: tuple[Evaluator, Split, list[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, split, _ = small
    passes: list[None] = []
    evaluator.model.register_forward_hook(lambda *_: passes.append(None))
    n_bytes = 31 * 8 * 4  # tokens, width, bytes of a number
    for kept_bytes, n_computed in ((n_bytes, 1), (n_bytes - 1, 2)):
        monkeypatch.setattr(evaluation_module, "KEPT_BYTES", kept_bytes)
        passes.clear()
        with evaluating(evaluator.model, CPU):
            n_batches = len([*evaluator.batches(split)])
            passes.clear()
            both = Batches(evaluator, split)
            assert [n_targets(both()), n_targets(both())] == [30, 30]
        assert len(passes) == n_computed * n_batches

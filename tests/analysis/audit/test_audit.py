"""The audit of the student report: its numbers, and that every answer is computed from them."""

import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.audit import __main__ as command
from analysis.audit import claims, recompute, summary, table_1_runs
from analysis.audit.claims import Claim, ReportedNumbers
from analysis.recorded_run import RecordedRun
from nanosq import losses
from nanosq.tracking.parameters import readable

ROOT = Path(__file__).parents[3]
NOT_CODE = ("read ", "count ")  # how a check begins that is no command


@pytest.fixture(scope="module")
def checked() -> list[Claim]:
    reported = ReportedNumbers()
    texts_and_runs = claims.vocabulary(None), *table_1_runs.check(reported, [])
    return [*claims.facts(reported), *texts_and_runs, *claims.losses(reported)]


def find(checked: list[Claim], words: str) -> Claim:
    (claim,) = [claim for claim in checked if words in claim.text]
    return claim


@pytest.mark.parametrize(
    ("words", "value", "is_right"),
    [
        ("Cross-entropy: the test perplexity", 6.2090, False),
        ("Squentropy: the test perplexity", 6.6792, False),
        ("Both test losses are in nats", 0.2503, False),
        ("evaluated equally often", 40, False),
        ("default min_lr", 6e-5, True),
        ("reaches its learning rate", 0.0245, False),
        ("Tokens of an iteration", 163_840, None),
        ("Tokens of a trial", 8_192_000, None),
        ("Parameters with 8 layers", 95_269_632, None),
        ("Parameters with 12 layers", 123_587_328, False),
        ("Parameters with 16 layers", 151_905_024, False),
        ("Stories in the test set", 1060, None),
        ("scores every story", 10_240, False),
        ("none is padding", 47, False),
        ("(Listing A.2) starts", 12.594, False),
        ("(Listing A.2) can reach", 9.326, False),
        ("(equation 2) starts", 11.287, True),
        ("(equation 2) can reach", 0.0, True),
        ("was run) starts", 11.288, True),
        ("was run) can reach", 0.2585, True),
        ("(equation 1) starts", 10.979, False),
        ("(equation 1) can reach", 0.0, True),
        ('"mse" starts', 0.1988, False),
        ('"mse" can reach', 0.0, True),
    ],
)
def test_recomputed_number(checked: list[Claim], words: str, value: float, is_right: bool | None) -> None:
    claim = find(checked, words)
    assert claim.computed.value == pytest.approx(value, rel=1e-4, abs=1e-4)
    assert claim.is_right is is_right


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("one of those that were searched", "6e-06, 0.0006, 0.06"),
        ("Parameters with 12 layers", "123.6M, 124.4M"),
        ("differ only in the loss", "model.n_layer 12 and 16; model.dropout 0 and 0.1; optimizer.lr 0.0006 and 6e-05"),
        ("--loss_func=squentropy", "cross-entropy"),
        ("right panel", "squentropy's test loss"),
    ],
)
def test_recomputed_text(checked: list[Claim], words: str, text: str) -> None:
    assert find(checked, words).computed.text == text


@pytest.mark.parametrize(
    ("words", "changed", "is_right"),
    [
        ("Cross-entropy: the test perplexity", {"perplexities": (6.2, 5.2)}, True),
        ("Squentropy: the test perplexity", {"test_losses": (1.826, 1.649)}, True),
        ("Both test losses are in nats", {"test_losses": (1.826, 1.649)}, True),
        ("evaluated equally often", {"evaluations": (40, 40)}, True),
        ("one of those that were searched", {"best_lr": 6e-4}, True),
        ("default min_lr", {"best_lr": 6e-4}, False),
        ("Parameters with 12 layers", {"parameters": 124e6}, True),
        ("Parameters with 16 layers", {"parameters": 152e6}, True),
        ("scores every story", {"scored_tokens": 240_000}, True),
        ("Training takes as long", {"hours": (24, 24, 24)}, True),
    ],
)
def test_answer_depends_on_the_reported_number(words: str, changed: dict[str, Any], is_right: bool) -> None:
    assert find([*claims.facts(replace(ReportedNumbers(), **changed))], words).is_right is is_right


def test_answer_depends_on_the_reported_first_loss() -> None:
    checked = [*claims.losses(replace(ReportedNumbers(), first_loss=12.6, train_losses=(9.0, 9.4)))]
    assert find(checked, "(Listing A.2) starts").is_right is True
    assert find(checked, "(Listing A.2) can reach").is_right is True
    assert find(checked, "(equation 2) starts").is_right is False


def test_answer_depends_on_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = recompute.preset
    padding = {"data.tokenizer.pad_to": 50_257, "model.bias": True}
    schedule = {"train.warmup": 0, "schedule._target_": "nanosq.optim.constant"}
    same_in_both = {"model.n_layer": 12, "model.dropout": 0.0, "optimizer.lr": 6e-4}
    changed = {**padding, **schedule, **same_in_both}
    monkeypatch.setattr(recompute, "preset", lambda name: {**preset(name), **changed})
    monkeypatch.setattr(recompute, "n_parameters", lambda *_: (1, 2))
    checked = [*claims.facts(ReportedNumbers())]
    for words in ("none is padding", "so it has biases", "reaches its learning rate", "differ only in the loss"):
        assert find(checked, words).is_right is True, words


def mean_over_random_logits(loss: Callable[..., torch.Tensor], n_classes: int, width: int) -> tuple[float, float]:
    """Mean and standard error."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, n_classes, generator=generator, dtype=torch.float64) * math.sqrt(width) * 0.02
    values = loss(logits, torch.randint(n_classes, (4000,), generator=generator))
    return values.mean().item(), values.std().item() / math.sqrt(4000)


@pytest.mark.parametrize("name", claims.FIVE_LOSSES)
def test_initial_value_is_the_mean_over_random_logits(name: str) -> None:
    loss = getattr(losses, name)
    mean, error = mean_over_random_logits(loss, 500, 768)
    assert recompute.initial_value(loss, n_classes=500, width=768) == pytest.approx(mean, abs=4 * error + 2e-3)


@pytest.mark.parametrize("name", claims.FIVE_LOSSES)
def test_lowest_value_is_below_every_point_of_a_grid(name: str) -> None:
    loss, n_classes = getattr(losses, name), 50
    target, others = torch.meshgrid(torch.linspace(-5, 30, 141), torch.linspace(-5, 5, 81), indexing="ij")
    logits = others.reshape(-1, 1).repeat(1, n_classes).double()
    logits[:, 0] = target.flatten()
    lowest_on_grid = loss(logits, torch.zeros(len(logits), dtype=torch.int64)).min().item()
    lowest = recompute.lowest_value(loss, n_classes=n_classes)
    assert lowest <= lowest_on_grid + 1e-9
    assert lowest == pytest.approx(lowest_on_grid, abs=0.02)


def test_tokens_of_a_text_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text("a b a<|endoftext|>b a")  # "a", " b", " a", "b", and the end of text
    claim = claims.vocabulary(path)
    assert (claim.computed.value, claim.is_right) == (5, False)
    assert str(path) in claim.check


def test_without_a_text_the_vocabulary_is_unknown(checked: list[Claim]) -> None:
    claim = find(checked, "occurs in TinyStories")
    assert claim.is_right is None
    assert "--stories FILE" in claim.computed.text


def trained(name: str, perplexity: float, **changed: str) -> RecordedRun:
    """A run of a preset as run.py logs it."""
    settings = readable(recompute.preset(name))
    params = {key: str(value) for key, value in settings.items() if value is not None} | changed
    return RecordedRun("1", name, "FINISHED", 0, "", "", params, {"val/perplexity": perplexity}, {}, None)


@pytest.mark.parametrize(("perplexity", "is_right"), [(3.81, True), (6.2, False), (math.nan, None)])
def test_runs_of_table_1_are_found(perplexity: float, is_right: bool | None) -> None:
    first, second = table_1_runs.check(ReportedNumbers(), [trained("paper_cross_entropy", perplexity)])
    assert (first.is_right, second.is_right) == (is_right, None)
    first, second = table_1_runs.check(ReportedNumbers(), [trained("paper_squentropy", perplexity / 3.8 * 5.2)])
    assert (first.is_right, second.is_right) == (None, is_right)


@pytest.mark.parametrize(
    ("changed", "is_right"),
    [
        ({"model.n_layer": "2"}, None),
        ({"loss": "focal"}, None),
        ({"train.patience": "5"}, None),
        ({"device": "cuda", "train.log_every": "1", "data.source.path": "stories"}, True),
    ],
)
def test_runs_with_other_settings_are_not_table_1(changed: dict[str, str], is_right: bool | None) -> None:
    first, _ = table_1_runs.check(ReportedNumbers(), [trained("paper_cross_entropy", 3.8, **changed)])
    assert first.is_right is is_right


def test_verdict_counts_the_answers() -> None:
    verdict, table = summary.section([]).blocks[:2]
    answers = [row[3].text for row in table.cells()]
    assert set(answers) == {"yes", "no", "unknown"}
    n_checked, n_right, n_others = map(int, re.findall(r"\d+", verdict.text))
    assert (n_right, n_others) == (answers.count("yes"), answers.count("unknown"))
    assert n_checked == n_right + answers.count("no")


def test_commands_print_the_recomputed_numbers(checked: list[Claim]) -> None:
    for claim in checked:
        if claim.check.startswith(NOT_CODE):
            continue
        words = shlex.split(claim.check)
        for word in words[1:]:
            if "/" in word and "=" not in word and word != "/":
                assert (ROOT / word).exists(), claim.check
        if words[:2] == ["python", "-c"]:
            compile(words[2], claim.text, "exec")
            if "nanosq" not in words[2]:  # the others take seconds
                result = subprocess.run([sys.executable, *words[1:]], capture_output=True, check=True)
                assert float(result.stdout) == pytest.approx(claim.computed.value)


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/none.db"
    monkeypatch.setattr(sys, "argv", ["audit", "--tracking-uri", uri])
    assert command.main() == 0
    printed = capsys.readouterr().out
    assert "We could check 17 of the student report's claims; 1 is right." in printed
    assert "no      Cross-entropy: the test perplexity is exp(test loss)\n" in printed
    monkeypatch.setattr(sys, "argv", ["audit", "--tracking-uri", uri, "--stories", "missing.txt"])
    assert command.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --stories: there is no file missing.txt")
    assert error.count("\n") == 1
    assert [*tmp_path.iterdir()] == []

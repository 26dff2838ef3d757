"""The audit of the report: its golden numbers, and that its answers are computed."""

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
from hydra import compose, initialize_config_dir

from analysis.audit import __main__ as audit
from analysis.audit import claims, recompute, retrained
from analysis.page import Cell, Table
from analysis.recorded_run import RecordedRun
from nanosq import config, losses

ROOT = Path(__file__).parents[3]
config.register()


@pytest.fixture(scope="module")
def rows() -> dict[str, claims.Row]:
    said = claims.Report()
    found = [*claims.facts(said), claims.ids(None), *retrained.rows(said, []), *claims.losses(said)]
    return {row.claim: row for row in found}


def one(rows: dict[str, claims.Row], words: str) -> claims.Row:
    (found,) = [row for claim, row in rows.items() if words in claim]
    return found


@pytest.mark.parametrize(
    ("words", "value", "holds"),
    [
        ("Cross-entropy: the test perplexity", 6.2090, False),
        ("Squentropy: the test perplexity", 6.6792, False),
        ("Both test losses are in nats", 0.2503, False),
        ("evaluated equally often", 40, False),
        ("default min_lr", 6e-5, True),
        ("learning rate it is named after", 0.0245, False),
        ("Tokens an iteration", 163_840, None),
        ("Tokens a trial", 8_192_000, None),
        ("Parameters with 8 layers", 95_269_632, None),
        ("Parameters with 12 layers", 123_587_328, False),
        ("Parameters with 16 layers", 151_905_024, False),
        ("Stories in the test set", 1060, None),
        ("scores each story", 10_240, False),
        ("none for padding", 47, False),
        ("(Listing A.2) begins", 12.594, False),
        ("(Listing A.2) can fall", 9.326, False),
        ("(equation 2) begins", 11.287, True),
        ("(equation 2) can fall", 0.0, True),
        ("was run) begins", 11.288, True),
        ("was run) can fall", 0.2585, True),
        ("(equation 1) begins", 10.979, False),
        ("(equation 1) can fall", 0.0, True),
        ('"mse" begins', 0.1988, False),
        ('"mse" can fall', 0.0, True),
    ],
)
def test_golden(rows: dict[str, claims.Row], words: str, value: float, holds: bool | None) -> None:
    row = one(rows, words)
    assert row.found.value == pytest.approx(value, rel=1e-4, abs=1e-4)
    assert row.holds is holds


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("one of those searched", "6e-06, 0.0006, 0.06"),
        ("Parameters with 12 layers", "123.6M, 124.4M"),
        (
            "differ in nothing but the loss",
            "model.n_layer 12 and 16; model.dropout 0 and 0.1; optimizer.lr 0.0006 and 6e-05",
        ),
        ("code that the report links", "cross-entropy"),
        ("Right panel", "test loss of squentropy"),
    ],
)
def test_found_texts(rows: dict[str, claims.Row], words: str, found: str) -> None:
    assert one(rows, words).found.text == found


@pytest.mark.parametrize(
    ("words", "changed", "holds"),
    [
        ("Cross-entropy: the test perplexity", {"perplexities": (6.2, 5.2)}, True),
        ("Squentropy: the test perplexity", {"test_losses": (1.826, 1.649)}, True),
        ("Both test losses are in nats", {"test_losses": (1.826, 1.649)}, True),
        ("evaluated equally often", {"evaluations": (40, 40)}, True),
        ("one of those searched", {"best_lr": 6e-4}, True),
        ("default min_lr", {"best_lr": 6e-4}, False),
        ("Parameters with 12 layers", {"parameters": 124e6}, True),
        ("Parameters with 16 layers", {"parameters": 152e6}, True),
        ("scores each story", {"scored_tokens": 240_000}, True),
        ("Training takes as long", {"hours": (24, 24, 24)}, True),
    ],
)
def test_another_number_in_the_report_is_another_answer(words: str, changed: dict[str, Any], holds: bool) -> None:
    found = {row.claim: row for row in claims.facts(replace(claims.Report(), **changed))}
    assert one(found, words).holds is holds


def test_another_first_loss_is_another_loss() -> None:
    found = {
        row.claim: row for row in claims.losses(replace(claims.Report(), first_loss=12.6, train_losses=(9.0, 9.4)))
    }
    assert one(found, "(Listing A.2) begins").holds is True
    assert one(found, "(Listing A.2) can fall").holds is True
    assert one(found, "(equation 2) begins").holds is False


def test_other_settings_are_other_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    real = recompute.preset
    settings = {"data.tokenizer.pad_to": 50_257.0, "model.bias": True, "train.warmup": 0.0, "/schedule": "constant"}
    same = {"model.n_layer": 12.0, "model.dropout": 0.0, "optimizer.lr": 6e-4}
    monkeypatch.setattr(recompute, "preset", lambda name: real(name) | settings | same)
    monkeypatch.setattr(recompute, "n_parameters", lambda *_: (1, 2))
    found = {row.claim: row for row in claims.facts(claims.Report())}
    for words in ("none for padding", "without modification", "it is named after", "differ in nothing but the loss"):
        assert one(found, words).holds is True, words


def test_preset_changes_the_one_it_builds_on() -> None:
    settings = recompute.preset("paper_squentropy")
    assert settings["/loss"] == "squentropy_repo"
    assert settings["/schedule"] == "cosine_from_zero"
    assert (settings["optimizer.lr"], settings["model.n_layer"], settings["train.accumulate"]) == (6e-5, 16, 40)


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
def test_floor_is_below_every_point_of_a_grid(name: str) -> None:
    loss, n_classes = getattr(losses, name), 50
    target, others = torch.meshgrid(torch.linspace(-5, 30, 141), torch.linspace(-5, 5, 81), indexing="ij")
    logits = others.reshape(-1, 1).repeat(1, n_classes).double()
    logits[:, 0] = target.flatten()
    least = loss(logits, torch.zeros(len(logits), dtype=torch.int64)).min().item()
    found = recompute.floor(loss, n_classes=n_classes)
    assert found.value <= least + 1e-9
    assert found.value == pytest.approx(least, abs=0.02)


def test_floor_of_the_listing_is_where_its_gradient_vanishes() -> None:
    assert recompute.floor(losses.squentropy_listing, n_classes=50_304)[1:] == pytest.approx((1.5, -0.5), abs=1e-3)


def test_ids_of_a_text_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text("a b a<|endoftext|>b a")  # "a", " b", " a", "b", and the end of text
    row = claims.ids(path)
    assert (row.found.value, row.holds) == (5, False)
    assert str(path) in row.how


def test_without_a_text_nothing_is_claimed(rows: dict[str, claims.Row]) -> None:
    row = one(rows, "occurs in TinyStories")
    assert row.holds is None
    assert "--stories FILE" in row.found.text


def retrained_run(name: str, perplexity: float, **changed: str) -> RecordedRun:
    """As run.py logs it."""
    with initialize_config_dir(str(recompute.CONF)):
        cfg = compose("config", overrides=[f"experiment={name}"])
    params = {key: str(value) for key, value in config.flatten(cfg).items() if value is not None} | changed
    return RecordedRun("1", name, "FINISHED", 0, "", "", params, {"val/perplexity": perplexity}, {}, None)


@pytest.mark.parametrize(("perplexity", "holds"), [(3.81, True), (6.2, False), (math.nan, None)])
def test_trained_again(perplexity: float, holds: bool | None) -> None:
    first, second = retrained.rows(claims.Report(), [retrained_run("paper_cross_entropy", perplexity)])
    assert (first.holds, second.holds) == (holds, None)
    first, second = retrained.rows(claims.Report(), [retrained_run("paper_squentropy", perplexity / 3.8 * 5.2)])
    assert (first.holds, second.holds) == (None, holds)


@pytest.mark.parametrize("changed", [{"model.n_layer": "2"}, {"loss._target_": "nanosq.losses.focal"}])
def test_a_run_of_other_settings_is_not_table_1_again(changed: dict[str, str]) -> None:
    first, _ = retrained.rows(claims.Report(), [retrained_run("paper_cross_entropy", 3.8, **changed)])
    assert first.holds is None


def test_section_counts_its_answers() -> None:
    verdict, table = audit.section([]).blocks[:2]
    answers = [row[3].text for row in table.cells()]
    assert set(answers) == {"yes", "no", "cannot be told"}
    checked, true, false, others = map(int, re.findall(r"\d+", verdict.text))
    assert (true, false, others) == tuple(map(answers.count, ("yes", "no", "cannot be told")))
    assert checked == true + false


def test_commands_are_there(rows: dict[str, claims.Row]) -> None:
    """Those that take no time are run and print what the table says."""
    for row in rows.values():
        if row.how.startswith("read in the"):
            continue
        words = shlex.split(row.how)
        for word in words[1:]:
            if "/" in word and word != "/":
                assert (ROOT / word).exists(), row.how
        if words[0] == "python" and words[1] == "-c":
            compile(words[2], row.claim, "exec")
            if "nanosq" not in words[2]:
                printed = float(subprocess.run([sys.executable, *words[1:]], capture_output=True, check=True).stdout)
                assert printed == pytest.approx(row.found.value)


def test_wrapped_fits_and_loses_nothing() -> None:
    table = Table("t", ["claim", "holds"], [["one two three four five six seven", Cell("no", 1.0)], ["a" * 50, "yes"]])
    text = audit.wrapped(table, 30)
    assert max(map(len, text.splitlines())) <= 30
    assert re.sub(r"\s", "", text).count("a" * 10) >= 4
    assert "seven" in text
    assert audit.wrapped(table, 100) == table.text()


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/none.db"
    monkeypatch.setattr(sys, "argv", ["audit", "--tracking-uri", uri])
    assert audit.main() == 0
    assert "cannot be told" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["audit", "--tracking-uri", uri, "--stories", "missing.txt"])
    assert audit.main() == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: there is no file missing.txt")
    assert said.err.count("\n") == 1
    assert [*tmp_path.iterdir()] == []

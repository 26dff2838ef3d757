"""`python -m nanosq.evaluate`: its numbers against plain loops, and its files."""

import csv
import gzip
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mlflow.entities import Run
from torch import Tensor

from nanosq import checkpoint, evaluate, pretrained
from nanosq.data import __main__ as data_command
from nanosq.data import tokenizers
from nanosq.data.stories import stories
from nanosq.data.tokenizers import Tokenizer
from nanosq.model import GPT
from nanosq.tracking import Store
from tests.commandline import SMALL, command, runs

BLOCK = 64  # of byte_model
STORIES = [document.text for document in stories("test", n_test=12)]
SEPARATOR = "\n<|endoftext|>\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a model has been trained."""
    path = tmp_path_factory.mktemp("run")
    command(*SMALL, cwd=path, check=True)
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of this folder, which becomes the working directory."""
    monkeypatch.chdir(folder)
    (run,) = runs(folder)
    return run


@pytest.fixture
def evaluated(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Return the JSON object of a command."""

    def call(*arguments: object) -> dict[str, Any]:
        assert evaluate.main([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
        return dict(json.loads(capsys.readouterr().out))

    return call


@torch.no_grad()
def plain_nll(model: GPT, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Tensor]:
    """Return the nll of each token of each text, in float64, one window after another.

    The windows of a long text overlap by half a block, and the last one ends where the text does.
    """
    model, end, block = model.double(), tokenizer.end_of_text, model.block_size
    result = []
    for text in texts:
        tokens = torch.tensor([end, *tokenizer.encode([text])[0].tolist(), end])
        n = len(tokens) - 1
        nll_N = torch.full((n,), torch.nan, dtype=torch.float64)
        begin = 0
        while nll_N.isnan().any():
            begin = max(0, min(begin, n - block))
            window = tokens[begin : begin + block + 1]
            logits_TV = model(window[None, :-1])[0] @ model.head_weight.T
            part = nll_N[begin : begin + block]
            part[:] = torch.where(part.isnan(), F.cross_entropy(logits_TV, window[1:], reduction="none"), part)
            begin += block // 2
        result.append(nll_N)
    return result


def test_a_run_is_scored_as_it_scored_itself(run: Run, evaluated: Callable[..., Any], capsys: Any) -> None:
    (corpus,) = Path("cache").glob("stories-*")
    arguments = ["nanosq.data", "write", corpus.name, "test", "test.txt", "--cache-dir", "cache"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", arguments)
        assert data_command.main() == 0
    assert capsys.readouterr().out == "test.txt: 10 documents\n"
    options = [run.info.run_id, "--data", "test.txt", "--tracking-uri", "sqlite:///mlflow.db"]
    result = evaluated(*options)
    assert result["hardware"] == run.data.tags["hardware"]
    assert result["documents"] == 10
    nll, precision = run.data.metrics["test/nll"], run.data.tags["hardware"].split()[1]
    assert result["recorded"] == {"metric": "test/nll", "value": nll, "precision": precision}
    for name in ("nll", "perplexity", "bits_per_byte", "accuracy", "ece"):
        assert result[name] == pytest.approx(run.data.metrics[f"test/{name}"], rel=1e-6), name

    path = f"mlruns/nanosq/{run.info.run_id}/artifacts/checkpoint/best.pt"
    trained = pretrained.load(path, Store())
    texts = Path("test.txt").read_text().split("<|endoftext|>")[:-1]
    nll_N = torch.cat(plain_nll(trained.build(), trained.tokenizer, [text.strip() for text in texts]))
    plain = evaluated(path, "--data", "test.txt", "--precision", "fp32")
    assert plain["nll"] == pytest.approx(float(nll_N.mean()), abs=1e-6)
    assert plain["tokens"] == len(nll_N)

    assert evaluate.main(options) == 0
    header, row, model, recorded = capsys.readouterr().out.splitlines()
    assert dict(zip(header.split(), row.split(), strict=True))["nll"] == f"{nll:.6f}"
    assert model.startswith(f"{run.info.run_id}: {run.data.tags['hardware']}, CutGPT2 with ")
    assert recorded == f"the run has recorded test/nll {nll:.6f} for this text, in {precision}"


def test_bytes_as_tokens_and_a_row_for_each_document(byte_model: Path, evaluated: Callable[..., Any]) -> None:
    Path("a.txt").write_text("".join(text + SEPARATOR for text in STORIES[:5]))
    rows = [{"body": text} for text in [STORIES[5], "", *STORIES[6:]]]  # an empty row keeps its number
    with gzip.open("b.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    result = evaluated(byte_model, "--data", "*.txt", "b.jsonl.gz", "--column", "body", "--csv", "scores.csv")
    nll = plain_nll(pretrained.load(str(byte_model), Store()).build(), tokenizers.byte_level(), STORIES)
    total = torch.cat(nll)
    n_bytes = sum(len(text.encode()) for text in STORIES)
    assert (result["documents"], result["tokens"], result["bytes"]) == (12, n_bytes + 12, n_bytes)
    assert result["recorded"] is None
    assert result["hardware"] == "cpu fp32"
    assert result["nll"] == pytest.approx(float(total.mean()), abs=1e-6)
    assert result["bits_per_byte"] == pytest.approx(float(total.sum()) / math.log(2) / n_bytes, rel=1e-6)

    table = list(csv.DictReader(Path("scores.csv").read_text().splitlines()))
    assert [(row["file"], int(row["number"])) for row in table] == [
        *(("a.txt", number) for number in range(1, 6)),
        *(("b.jsonl.gz", number) for number in (1, 3, 4, 5, 6, 7, 8)),
    ]
    columns = {name: np.array([float(row[name]) for row in table]) for name in table[0] if name not in ("file", "text")}
    assert columns["nll"] == pytest.approx([float(each.sum()) for each in nll], rel=1e-6)
    assert columns["perplexity"] == pytest.approx([float(each.mean().exp()) for each in nll], rel=1e-5)
    assert columns["nll_per_token"] * columns["tokens"] == pytest.approx(columns["nll"])
    assert columns["bits_per_byte"] * columns["bytes"] * math.log(2) == pytest.approx(columns["nll"])
    assert sum(columns["nll"]) / sum(columns["tokens"]) == pytest.approx(result["nll"], rel=1e-12)
    assert sum(columns["accuracy"] * columns["tokens"]) / sum(columns["tokens"]) == pytest.approx(result["accuracy"])
    assert all(text.startswith(row["text"]) for text, row in zip(STORIES, table, strict=True))


def windows_of(stream: np.ndarray, *, size: int, counts: Sequence[int], seed: int) -> Iterator[np.ndarray]:
    """Yield the batches of windows as nanoGPT's get_batch draws them, with the random numbers of nanosq."""
    for step, count in enumerate(counts):
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.uint64)))
        begins = generator.integers(len(stream) - size, size=count)
        yield np.stack([stream[begin : begin + size + 1] for begin in begins])


def test_random_windows_as_in_the_student_report(byte_model: Path, evaluated: Callable[..., Any], capsys: Any) -> None:
    Path("a.txt").write_text(SEPARATOR.join(STORIES))
    options = [byte_model, "--data", "a.txt", "--protocol", "report", "--windows", "10", "--seed", "5"]
    result = evaluated(*options)
    stream = np.array([token for text in STORIES for token in (*text.encode(), 256)])
    model = pretrained.load(str(byte_model), Store()).build().double()
    means: list[Tensor] = []
    for batch in windows_of(stream, size=BLOCK, counts=(4, 4, 2), seed=5):
        tokens_BT, targets_BT = torch.from_numpy(batch[:, :-1]), torch.from_numpy(batch[:, 1:])
        with torch.no_grad():
            logits_BTV = model(tokens_BT) @ model.head_weight.T
        means += [F.cross_entropy(*window) for window in zip(logits_BTV, targets_BT, strict=True)]
    nll_N = torch.stack(means)
    expected = {
        "windows": 10,
        "window_size": BLOCK,
        "nll": float(nll_N.mean()),
        "standard_error": float(nll_N.std()) / math.sqrt(10),
        "perplexity": float(nll_N.mean().exp()),
    }
    assert result["report"] == pytest.approx(expected, rel=1e-5)
    assert evaluated(*options) == result
    assert evaluated(*options[:-1], "6")["report"]["nll"] != result["report"]["nll"]
    assert evaluate.main([*map(str, options)]) == 0
    *_, random, whole = capsys.readouterr().out.splitlines()
    assert random.startswith("10 random windows of 64")
    assert f"{result['report']['nll']:.6f}" in random
    assert f"{result['nll']:.6f}" in whole


def test_a_text_of_a_single_window(byte_model: Path, evaluated: Callable[..., Any]) -> None:
    """A text as long as the window has one place for it. Its mean is that of all tokens but the first."""
    text = "a" * 20 + "b" * 20
    Path("a.txt").write_text(text)
    report = evaluated(byte_model, "--data", "a.txt", "--protocol", "report", "--window-size", "40")["report"]
    with torch.no_grad():
        model = pretrained.load(str(byte_model), Store()).build()
        tokens = torch.tensor([*text.encode(), 256])
        nll = F.cross_entropy(model(tokens[None, :-1])[0] @ model.head_weight.T, tokens[1:])
    assert report["nll"] == pytest.approx(float(nll), abs=1e-6)
    assert report["standard_error"] == pytest.approx(0, abs=1e-9)
    assert (report["windows"], report["window_size"]) == (40, 40)


def test_a_perplexity_above_all_numbers(byte_model: Path, evaluated: Callable[..., Any]) -> None:
    saved = checkpoint.load(byte_model)
    saved["model"]["token_embedding.weight"] *= 1e6
    checkpoint.save(byte_model, saved)
    Path("a.txt").write_text("a few words")
    result = evaluated(byte_model, "--data", "a.txt")
    assert result["nll"] > 1000
    assert result["perplexity"] is None

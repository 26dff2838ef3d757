"""`python -m nanosq.evaluate` with texts, options and models that it cannot use: one line, and nothing is written."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nanosq import checkpoint, evaluate
from nanosq.data import tokenizers

BAD_INPUT = {
    "no such file": (["--data", "nowhere.txt"], "--data: there is no file nowhere.txt"),
    "a folder": (["--data", "texts"], "--data: texts is a directory; name files in it, e.g. texts/*.txt"),
    "an empty file": (["--data", "empty.txt"], "empty.txt is empty"),
    "no document": (["--data", "blank.txt"], "blank.txt holds no document, only white space or separators"),
    "a format": (["--data", "a.csv"], "cannot read .csv files"),
    "no such column": (["--data", "a.jsonl"], "a.jsonl, line 1: no 'text' in story; set --column"),
    "no text in a column": (["--data", "a.jsonl", "--column", "n"], "line 1: no 'n' in story; set --column"),
    "an empty separator": (["--data", "a.txt", "--separator", ""], "--separator is empty"),
    "a folder for the table": (["--data", "a.txt", "--csv", "texts"], "texts is a folder"),
    "a missing folder": (["--data", "a.txt", "--csv", "b/c.csv"], "cannot write b/c.csv: there is no folder b"),
    "a table in place of a text": (["--data", "a.txt", "--csv", "./a.txt"], "--csv would replace a.txt"),
    "a precision": (
        ["--data", "a.txt", "--precision", "fp8"],
        "--precision: 'fp8' is not one of auto, fp32, bf16, fp16",
    ),
    "a device": (["--data", "a.txt", "--device", "abacus"], "device=abacus is not available here"),
    "a short text": (
        ["--data", "a.txt", "--protocol", "report"],
        "the text has 12 tokens, and a window takes 65: give more text or smaller windows",
    ),
    "a long window": (
        ["--data", "a.txt", "--protocol", "report", "--window-size", "65"],
        "windows of 65 tokens do not fit the model: give 1 to 64",
    ),
    "an empty window": (
        ["--data", "a.txt", "--protocol", "report", "--window-size", "0"],
        "--window-size: '0' is not a whole",
    ),
    "one window": (["--data", "a.txt", "--protocol", "report", "--windows", "1"], "1 windows have no standard error"),
    "windows": (["--data", "a.txt", "--windows", "40"], "are those of random windows: add --protocol report"),
    "a window size": (["--data", "a.txt", "--window-size", "8"], "add --protocol report"),
    "a seed": (["--data", "a.txt", "--seed", "1337"], "add --protocol report"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line(case: str, byte_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts").mkdir()
    for name, content in {"empty.txt": "", "blank.txt": " \n", "a.txt": "a few words", "a.csv": "a,b"}.items():
        Path(name).write_text(content)
    Path("a.jsonl").write_text('{"story": "words"}\n')
    before = {path: path.read_bytes() for path in byte_model.parent.iterdir() if path.is_file()}
    options, message = BAD_INPUT[case]
    assert evaluate.main([str(byte_model), *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert message in output.err
    assert output.err.count("\n") == 1
    assert {path: path.read_bytes() for path in byte_model.parent.iterdir() if path.is_file()} == before


def test_a_text_without_separators(byte_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its number of documents is not what one expects, and each of them is scored without the text before it."""
    Path("long.txt").write_text("a few words " * 300)
    Path("short.txt").write_text("a few words")
    Path("two.txt").write_text("a few words %% a few words")
    assert evaluate.main([str(byte_model), "--data", *map(str, Path().glob("*.txt")), "--separator", "%%"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[1].split()[0] == "5"
    assert output.err == (
        "note: long.txt has no --separator '%%': each of its 2 passages is scored from its own beginning\n"
    )


def test_an_unknown_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["best.pt", "--data", "a.txt", "--protocol", "paper"]) == 2
    assert capsys.readouterr().err == "error: --protocol: 'paper' is not one of whole, report\n"


def test_ids_beyond_the_vocabulary(
    byte_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.txt").write_text("a few words")
    monkeypatch.setattr(tokenizers.ByteLevel, "encode", lambda self, texts: [np.array([300])] * len(texts))
    assert evaluate.main([str(byte_model), "--data", "a.txt", "--csv", "out.csv"]) == 2
    assert "the tokenizer gives the id 300, and its vocabulary has 257" in capsys.readouterr().err
    assert not Path("out.csv").exists()


def test_a_model_that_gives_no_numbers(byte_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = checkpoint.load(byte_model)
    saved["model"]["final_norm.weight"][:] = torch.finfo().max  # finite weights, but some of the logits are not
    checkpoint.save(byte_model, saved)
    Path("a.txt").write_text("a few words")
    assert evaluate.main([str(byte_model), "--data", "a.txt", "--csv", "out.csv", "--json"]) == 2
    written = capsys.readouterr()
    assert (written.out, written.err) == ("", "error: the model is broken: its logits are not finite numbers\n")
    assert not Path("out.csv").exists()

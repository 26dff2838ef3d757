"""The command that prints texts of a model."""

import os
import re
import select
import signal
from pathlib import Path

import pytest
import torch

from nanosq import checkpoint, generate
from nanosq.data import tokenizers
from nanosq.generation import generate as texts_of
from nanosq.model import GPT
from nanosq.typesetting import side_by_side, wrap
from tests.commandline import on_terminal, running

SIZES = {"block_size": 32, "n_layer": 1, "n_head": 1, "n_embd": 16}
TOKENIZERS = {"a.pt": tokenizers.byte_level(), "b.pt": tokenizers.CutGPT2((257, 262, 290, 373))}


def model(name: str) -> GPT:
    """Return a model whose texts have many spaces, and seldom end."""
    torch.manual_seed(len(TOKENIZERS[name].spellings))
    result = GPT(TOKENIZERS[name].vocab_size, **SIZES, embedding_std=0.3)
    return result.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two models that have different tokenizers."""
    result = tmp_path_factory.mktemp("models")
    for name, tokenizer in TOKENIZERS.items():
        settings, state = {"model._target_": "nanosq.model.GPT"}, model(name).state_dict()
        content = {"settings": settings, "architecture": SIZES, "model": state, "tokenizer": tokenizer.state()}
        checkpoint.save(result / name, content)
    return result


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")


def expected(name: str, **options: object) -> list[str]:
    return texts_of(model(name), TOKENIZERS[name], **options)


def test_a_pipe_gets_complete_texts(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--num", "2", "--temperature", "1.2", "--top-k", "50", "--top-p", "0.9", "--seed", "3"]
    assert generate.main(["a.pt", "--prompt", "One", "--prompt", "Two", "--max-new-tokens", "40", *options]) == 0
    settings = {"count": 2, "length": 40, "temperature": 1.2, "top_k": 50, "top_p": 0.9, "seed": 3}
    texts = [text for prompt in ("One", "Two") for text in expected("a.pt", prompt=prompt, **settings)]
    written = capsys.readouterr()
    assert written.out == "\n\n---\n\n".join(texts) + "\n"
    assert written.err == ""


def test_a_prompt_longer_than_the_window_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    prompts = {31: "x" * 31, 32: "y" * 32}
    for length, prompt in prompts.items():
        assert generate.main(["a.pt", "--prompt", "short", "--prompt", prompt, "--max-new-tokens", "3"]) == 0
        written = capsys.readouterr()
        assert prompt in written.out
        note = "note: of a prompt of 32 tokens, a.pt sees only the end\n"
        assert written.err == (note if length == 32 else "")


def test_other_precision(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["a.pt", "--precision", "bf16", "--prompt", "One", "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("One")


@pytest.mark.parametrize("columns", [80, 59])
def test_comparison(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each column has the text that its model writes alone."""
    monkeypatch.setenv("COLUMNS", str(columns))
    prompt = "Once upon a time, a \u732b lived in a green house and had many friends."
    options = ["--prompt", prompt, "--num", "2", "--max-new-tokens", "30"]
    assert generate.main(["--compare", "a.pt", "b.pt", *options]) == 0
    written = capsys.readouterr().out
    pairs = zip(*(expected(name, prompt=prompt, count=2, length=30) for name in TOKENIZERS), strict=True)
    if columns == 80:
        title, blocks = "a.pt" + 37 * " " + "b.pt\n\n", [side_by_side(pair, 80) for pair in pairs]
    else:
        title, blocks = "", ["\n".join(wrap(f"a.pt:\n{a}\n\nb.pt:\n{b}", 59)) for a, b in pairs]
    assert written == title + "\n\n---\n\n".join(blocks) + "\n"
    for order in (["a.pt", "--compare", "b.pt", *options], ["a.pt", *options, "b.pt", "--compare"]):
        assert generate.main(order) == 0
        assert capsys.readouterr().out == written


def test_the_help_names_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        generate.main(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python -m nanosq.generate [options] MODEL | --compare MODEL MODEL\n")
    assert "\n  MODEL " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.pt", "--num", "0"], "--num: '0' is not a whole number from 1 to 10000"),
        (["a.pt", "--max-new-tokens", "-1"], "--max-new-tokens=-1: must be at least 0"),
        (["a.pt", "--temperature", "nan"], "--temperature=nan: must be finite"),
        (["a.pt", "--top-k", "0"], "--top-k=0: must be at least 1"),
        (["a.pt", "--top-p", "1.5"], "--top-p=1.5: must be at most 1"),
        (["a.pt", "--seed", "-1"], "--seed: '-1' is not a whole number"),
        (["a.pt", "--device", "nowhere"], "device=nowhere is not available"),
        (["a.pt", "--precision", "fp8"], "--precision: 'fp8' is not one of auto"),
        (["a.pt", "b.pt"], "give one model, or two with --compare"),
        (["--compare", "a.pt"], "--compare takes two models"),
        ([""], "MODEL: is empty"),
        (["nowhere.pt"], "there is no model nowhere.pt: give the id of a run"),
        (["0123abc"], "there is no model 0123abc: give the id of a run (32 digits), best.pt of a run, a folder"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("error: ")
    assert written.err.count("\n") == 1
    assert message in written.err


def test_a_terminal_is_written_to_while_the_model_writes(folder: Path) -> None:
    status, screen = on_terminal("nanosq.generate", "a.pt", "--num", "2", "--prompt", "One", cwd=folder)
    first, second = expected("a.pt", prompt="One", count=2)
    assert status == 0
    assert screen == "\n".join(wrap(f"{first}\n\n---\n\n{second}", 80)) + "\n"


def test_progress_is_shown_where_nothing_else_is(folder: Path) -> None:
    """A comparison is printed at once."""
    options = ["--prompt", "One", "--max-new-tokens", "30"]
    status, screen = on_terminal("nanosq.generate", "--compare", "a.pt", "b.pt", *options, cwd=folder)
    assert status == 0
    assert re.search(r"\r.*\d/32 ", screen)


def test_ctrl_c_ends_with_one_line(folder: Path) -> None:
    ours, theirs = os.openpty()
    command = ["nanosq.generate", "a.pt", "--max-new-tokens", "1000000"]
    streams = {"stdout": Path(os.ttyname(theirs)), "stderr": folder / "stderr"}
    with running(*command, cwd=folder, **streams) as process:
        assert select.select([ours], [], [], 60)[0]
        os.kill(process.pid, signal.SIGINT)
        screen = b""
        while process.is_alive() or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.1)[0]:
                screen += os.read(ours, 100_000)
    os.close(theirs)
    os.close(ours)
    assert process.exitcode == 130
    assert screen.endswith(b"\r\n")
    assert Path("stderr").read_text() == "interrupted\n"
    Path("stderr").unlink()


def test_a_closed_pipe_ends_quietly(folder: Path) -> None:
    os.mkfifo("pipe")
    command = ["nanosq.generate", "a.pt", "--max-new-tokens", "5"]
    with running(*command, cwd=folder, stdout=folder / "pipe", stderr=folder / "stderr") as process:
        os.close(os.open("pipe", os.O_RDONLY))
    assert process.exitcode == 141
    assert Path("stderr").read_text() == ""

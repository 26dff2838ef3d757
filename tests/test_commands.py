"""The commands of analysis/ and nanosq/: their help, and what they say in a folder without runs."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from nanosq import command
from tests.commandline import ROOT

FILES = sorted(path for folder in ("analysis", "nanosq") for path in (ROOT / folder).rglob("*.py"))
COMMANDS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in FILES
    if '__name__ == "__main__"' in path.read_text()
]
READ_RUNS = [name for name in COMMANDS if name.startswith("analysis.report") and not name.endswith("glossary")]

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NANOSQ_CACHE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


def run(name: str, *arguments: str) -> int:
    """Run a command in this process and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [name, *arguments])
        try:
            runpy.run_module(name, run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0


def test_all_commands_are_known() -> None:
    assert len(COMMANDS) == 30
    assert {"analysis.report", "analysis.report.search", "analysis.audit", "nanosq.data"} < {*COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_what_a_command_does_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    usage, description, *others = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: python -m {name}")
    assert len(description.split()) > 3
    assert any(f"python -m {name}" in text for text in others)
    assert max(map(len, "\n".join([usage, description, *others]).splitlines())) <= 80


@pytest.mark.parametrize("name", READ_RUNS)
def test_without_runs_a_command_says_what_to_do(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["one", "two"] if name.endswith("compare") else []
    status, output = run(name, *arguments), capsys.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert (status, len(errors)) == ((0, 0) if output.out else (2, 1))
    assert re.search("python run.py |set --tracking-uri", " ".join([*errors, *output.out.split()]))


@pytest.mark.parametrize(("name", "text"), [("analysis.audit", "claims"), ("nanosq.data", "no corpus in cache")])
def test_other_commands_say_something_without_runs(name: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name) == 0
    assert text in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_a_reader_of_the_output_that_has_gone_is_no_error(arguments: list[str]) -> None:
    """The pipe is closed before the command starts, as by `head` in the middle of a longer output."""
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "analysis.report.glossary", *arguments]
    result = subprocess.run(argv, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise KeyboardInterrupt

    assert command.run(work) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_ctrl_c_while_libraries_are_imported_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    command.show_interruption(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "interrupted\n"
    command.show_interruption(KeyError, KeyError("our own fault"), None)
    assert "KeyError" in capsys.readouterr().err

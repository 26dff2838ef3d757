"""Screens of 80 columns: no line is broken inside of a word, and links stand alone."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commandline import SMALL, on_terminal

ESCAPE = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
COMMANDS = {
    "run": ["run.py", *SMALL],
    "grid": [
        *["run.py", "-m", "optimizer.lr=1e-3,1e38", "model.dropout=0.0,0.1", "train.clip_norm=null"],
        *["precision=fp32", "samples.count=0", *SMALL, "train.max_steps=1"],
    ],
    "search": [
        *["run.py", "-m", "hydra/sweeper=optuna", "loss=squentropy", "hydra.sweeper.n_trials=2", *SMALL],
        "train.max_steps=2",
    ],
    "report": ["analysis.report"],
}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return what a command has written, with its colours. The commands are run in one folder, one after another."""
    folder = tmp_path_factory.mktemp("screens")
    screens: dict[str, str] = {}
    for name, arguments in COMMANDS.items():
        status, screens[name] = on_terminal(*arguments, cwd=folder)
        assert status == 0, screens[name]
    return screens.__getitem__


def lines(screen: str) -> list[str]:
    """Return the lines without colours. A progress bar writes its line again and again."""
    return re.split(r"[\r\n]+", ESCAPE.sub("", screen))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_too_long_and_links_stand_alone(name: str, screen: Callable[[str], str]) -> None:
    """A terminal breaks longer lines at its last column. Only a word that is longer itself, as a link, is broken."""
    assert not [line for line in lines(screen(name)) if len(line) > 80 and " " in line]
    links = [line for line in lines(screen(name)) if "http://" in line]
    assert len(links) == (3 if name == "run" else 0)
    assert all(re.fullmatch(r"((table|charts|run): )?http://\S+", line) for line in links)


def test_a_run_has_a_progress_bar(screen: Callable[[str], str]) -> None:
    assert re.search(r"\r6/6 \|.*\| .*, loss [\d.]+  nll [\d.]+  [\d.]+k tokens/s", ESCAPE.sub("", screen("run")))


def test_a_run_ends_with_its_result_and_what_to_do_next(screen: Callable[[str], str]) -> None:
    end = "\n".join(lines(screen("run"))).strip()
    assert re.search(r"\nval +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+% +[\d.]+%\ntest ", end)
    assert re.search(r"validation perplexity [\d.]+\n`mlflow ui` shows this run and all others:\n", end)
    assert end.splitlines()[-1] == "next: python -m analysis.report"


def test_a_sweep_counts_its_runs_and_has_a_command_to_copy(screen: Callable[[str], str]) -> None:
    text = "\n".join(lines(screen("grid")))
    for number in range(4):
        assert re.search(rf"^#{number}: .*;\s{number + 1}\sof\s4,\sbest\s[\d.]+\s\(#\d+\)", text, re.MULTILINE)
    assert re.search(r"^trial +state +val/perplexity +lr +dropout$", text, re.MULTILINE)
    (command,) = re.findall(r"^best: (python run\.py (?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert shlex.split(command.replace("\\\n", ""))[2] == "--config-dir"


def test_the_report_prints_its_result_and_its_path(screen: Callable[[str], str]) -> None:
    assert lines(screen("report"))[-2:] == ["report/report.html", ""]


def test_colours_are_used_sparingly(screen: Callable[[str], str], tmp_path: Path) -> None:
    assert "\x1b[31mdiverged" in screen("grid")  # red
    assert re.search(r"\x1b\[32m1 of 4, best ", screen("grid"))  # green: it is the best so far
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        status, text = on_terminal("analysis.report", cwd=tmp_path, **variables)
        assert (status, "\x1b" in text) == (2, False), text
        assert max(map(len, lines(text))) <= 80
        assert text.startswith("error: ")


def test_errors_are_wrapped(tmp_path: Path) -> None:
    status, text = on_terminal("run.py", "loss=squentopy", cwd=tmp_path)
    assert status == 2
    assert "\x1b[31merror:" in text
    assert max(map(len, lines(text))) <= 80
    assert "squentropy_listing" in text

"""The report on a comparison that run.py has made."""

import re
from pathlib import Path

import pytest

from analysis.page import Section
from analysis.report import __main__ as report
from analysis.report import comparison
from tests.commandline import SMALL, command

SWEEP = ["hydra/sweeper=compare", "hydra.sweeper.study_name=compare-1a2b", "hydra.sweeper.n_trials=2"]
LOSSES = ["loss=cross_entropy,squentropy", "hydra.sweeper.seeds=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest comparison: two losses with two trials and two seeds each."""
    folder = tmp_path_factory.mktemp("comparison")
    command("-m", *SWEEP, *LOSSES, *SMALL, cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_show(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison.show(
        "compare-1a2b",
        storage=f"sqlite:///{folder}/optuna.db",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        experiment=None,
        folder=tmp_path / "page",
    )
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    assert printed.splitlines()[-1] == str(tmp_path / "page" / "report.html")
    verdict, fairness, *_, table, _ = printed.split("\n\n")
    assert "2 seeds, 10 stories" in " ".join(verdict.split())
    assert "They differ only in the loss and in the settings that were tuned" in " ".join(verdict.split())
    assert fairness.startswith("Fairness: The same data ")
    assert re.search(r"confirmation runs +2 of 2 +2 of 2\n", table)
    html = (tmp_path / "page" / "report.html").read_text()
    sections = ["result", "tuning-and-confirmation", "differences", "scores", "training-and-validation-curves"]
    assert re.findall(r'<section id="([^"]*)"', html) == [*sections, "calibration", "texts", "stories"]
    assert re.search("<pre>python run.py -m hydra/sweeper=compare .*loss=cross_entropy,squentropy.*</pre>", html)
    assert "<dt>Train again</dt><dd>python run.py -m hydra/sweeper=compare" in html


@pytest.mark.slow
def test_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert comparison.main(["--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.endswith(f"\n\n{tmp_path}/out/report.html\n")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"comparison-tuning.svg", "comparison-contenders.csv", "report.html"} <= files
    assert comparison.main(["typo"]) == 2
    known = "error: no comparison 'typo' in sqlite:///optuna.db; there are compare-1a2b\n"
    assert capsys.readouterr().err == known
    monkeypatch.chdir(tmp_path)
    assert comparison.main([]) == 2
    assert capsys.readouterr().err.endswith("Start a comparison: " + comparison.COMMAND + "\n")


@pytest.mark.slow
def test_the_whole_report_begins_with_the_newest_comparison(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(report.audit, "section", lambda *_, **__: Section("The report, audited"))  # it takes seconds
    out = ["--out", str(tmp_path / "out")]
    assert report.main(out) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "another tuning may give another result. " in printed  # a note on calibration may follow
    assert printed.endswith(f" {tmp_path}/out/report.html")
    html = (tmp_path / "out" / "report.html").read_text()
    sections = ["result", "comparisons", "tuning-and-confirmation", "differences"]
    assert re.findall(r'<section id="([^"]*)"', html)[:4] == sections
    assert "No trial of a search has started in sqlite:///optuna.db." in html
    assert report.main(["--show", "compare-1a2b", *out]) == 0

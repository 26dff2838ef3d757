"""The report as it is called, on stores of every kind."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import pytest

from tests.analysis.store import add_run
from tests.commandline import ROOT


def report(folder: Path, *arguments: str, module: str = "report") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"analysis.{module}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
        capture_output=True,
        text=True,
        timeout=120,
    )


class Tables(HTMLParser):
    """The tables of a page by their id: rows of (text, data-value, href)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[list[str]]]] = {}
        self._rows: list[list[list[str]]] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "table":
            self._rows = self.found.setdefault(given["id"] or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(["", given.get("data-value") or "", ""])
            self._inside = True
        elif tag == "a" and self._inside:
            self._rows[-1][-1][2] = given["href"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._rows[-1][-1][0] += data


def test_numbers_of_the_page_are_those_of_mlflow(tmp_path: Path) -> None:
    ids = [add_run(tmp_path, loss, seed) for loss in ("cross_entropy", "squentropy") for seed in (1, 2, 3)]
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "report/report.html"
    html = (tmp_path / "report" / "report.html").read_text()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    metrics = {run_id: client.get_run(run_id).data.metrics for run_id in ids}
    tables = Tables(html).found
    header, *rows = tables["table-runs"]
    keys = [cell[0] for cell in header]
    assert {row[-1][1] for row in rows} == set(ids)
    for row in rows:
        for key, (text, value, _) in zip(keys, row, strict=True):
            if "/" in key:
                assert float(value) == metrics[row[-1][1]][key]
                assert float(text.replace(",", "")) == pytest.approx(float(value), rel=1e-4)
        assert row[-1][2].endswith(f"/runs/{row[-1][1]}")
    header, *rows = tables["table-table_1"]
    column = [cell[0] for cell in header].index("test perplexity")
    means = {row[0][0]: float(row[column][1]) for row in rows}
    for loss, own in (("cross_entropy", ids[:3]), ("squentropy", ids[3:])):
        assert means[loss] == pytest.approx(sum(metrics[run_id]["test/perplexity"] for run_id in own) / 3)
    verdict = re.search(r'<p class="verdict">(.*?)</p>', html)
    assert verdict
    assert "squentropy has a higher test nll than cross_entropy" in verdict[1]
    files = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"table_1.csv", "runs.csv"} <= files
    assert len([name for name in files if name.endswith(".svg")]) == html.count("<figure ")


def test_broken_runs_are_named_and_left_out(tmp_path: Path) -> None:
    add_run(tmp_path, "cross_entropy", 1)
    add_run(tmp_path, "cross_entropy", 2, status="RUNNING")
    add_run(tmp_path, "cross_entropy", 3, status="FAILED", n_points=2)
    add_run(tmp_path, "squentropy", 1, leave_out=("stories.csv", "test/ece", "calibration.csv", "curves.csv"))
    add_run(tmp_path, "squentropy", 2, tags={"diverged": "true"}, leave_out=("val/nll", "test/nll", "stories.csv"))
    add_run(tmp_path, "squentropy", 3, status="KILLED")
    add_run(tmp_path, "z_loss", 1, leave_out=("val/nll",))
    gone = add_run(tmp_path, "brier", 1)
    shutil.rmtree(tmp_path / "mlruns" / gone)
    add_run(tmp_path, "brier", 1, tags={"text": "ffffffffffff"})
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "report" / "report.html").read_text()
    states = [row[2][0] for row in Tables(html).found["table-unfinished"][1:]]
    assert sorted(states) == ["diverged", "failed", "killed", "running"]
    assert "Not enough runs" in html
    assert "Finished on other text: 1 with --text ffffffffffff" in html


def test_a_store_with_nothing_finished(tmp_path: Path) -> None:
    add_run(tmp_path, "squentropy", 1, status="RUNNING")
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No run has finished" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: MLflow has no run of experiment 'nanosq' here: python run.py -m loss="),
        (("--tracking-uri", "http://127.0.0.1:9"), "error: MLflow store http://127.0.0.1:9 cannot be read"),
        (("--experiment", "other"), "error: MLflow has no run of experiment 'other' here"),
    ],
)
def test_nothing_to_show_is_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = report(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(message)
    assert len([line for line in done.stderr.splitlines() if line.startswith("error")]) == 1
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_text(tmp_path: Path) -> None:
    add_run(tmp_path)
    done = report(tmp_path, "--text", "abc")
    assert (done.returncode, done.stderr) == (2, "error: no run on a text 'abc': --text takes one of 0123456789ab\n")


@pytest.mark.parametrize("option", [("--storage", "sqlite:///optunna.db"), ("--storage", "x"), ("--study", "typo")])
def test_a_study_that_was_asked_for_is_not_there(tmp_path: Path, option: tuple[str, str]) -> None:
    add_run(tmp_path)
    done = report(tmp_path, *option)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --storage, --study: ")
    assert not (tmp_path / "report").exists()


def test_seeds_that_diverged_are_part_of_the_verdict(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        add_run(tmp_path, "cross_entropy", seed)
        add_run(tmp_path, "squentropy", seed)
    add_run(tmp_path, "squentropy", 4, tags={"diverged": "true"}, leave_out=("val/nll", "test/nll"))
    assert report(tmp_path).returncode == 0
    verdict = re.search(r'<p class="verdict">(.*?)</p>', (tmp_path / "report" / "report.html").read_text())
    assert verdict
    assert "Left out: 1 seed of squentropy, diverged." in verdict[1]

"""The command `python -m analysis.report`, on stores with runs of all kinds."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import pytest

from analysis.page import Section
from analysis.report import __main__ as report
from tests.analysis.conftest import MLflowStore
from tests.analysis.recorded import complete_run
from tests.commandline import ROOT

NO_SCORES = ("val/nll", "test/nll")


class PageTables(HTMLParser):
    """The tables of a page by their id: rows of [text, data-value, href]."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self._rows: list[list[list[str]]] = []
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "table":
            self._rows = self.tables.setdefault(attributes["id"] or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(["", attributes.get("data-value") or "", ""])
            self._in_cell = True
        elif tag == "a" and self._in_cell:
            self._rows[-1][-1][2] = attributes["href"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self._rows[-1][-1][0] += data


@pytest.fixture
def no_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit takes seconds, and most tests do not look at it."""
    monkeypatch.setattr(report.audit, "section", lambda *_, **__: Section("The report, audited"))
    monkeypatch.chdir(tmp_path)


def page_of(store: MLflowStore, experiment: str, *arguments: str) -> str:
    """Run the command in this process and return the page."""
    assert report.main(["--tracking-uri", store.uri, "--experiment", experiment, *arguments]) == 0
    return Path("report/report.html").read_text()


@pytest.mark.slow
def test_numbers_of_the_page_are_those_of_mlflow(store: MLflowStore, tmp_path: Path) -> None:
    losses = ("cross_entropy", "squentropy")
    *ids, unpaired = store.write(
        "nanosq",
        [*(complete_run(loss, seed) for loss in losses for seed in (1, 2, 3)), complete_run("cross_entropy", 4)],
    )
    result = subprocess.run(
        [sys.executable, "-m", "analysis.report"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store.uri},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    verdict, fairness, *_, path = result.stdout.split("\n\n")
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert verdict.startswith("cross_entropy is better: the test nll of squentropy is ")
    assert fairness.startswith("Fairness: The same ")
    assert path == "report/report.html\n"
    html = (tmp_path / "report" / "report.html").read_text()
    client = mlflow.MlflowClient(store.uri)
    metrics = {run_id: client.get_run(run_id).data.metrics for run_id in ids}
    tables = PageTables(html).tables
    header, *rows = tables["table-runs"]
    keys = [cell[0] for cell in header]
    assert {row[-1][1] for row in rows} == set(ids)
    for row in rows:
        for key, (text, value, _) in zip(keys, row, strict=True):
            if "/" in key:
                assert float(value) == metrics[row[-1][1]][key]
                assert float(text.replace(",", "")) == pytest.approx(float(value), rel=1e-4)
        assert f"/runs/{row[-1][1]}?" in row[-1][2]
    header, *rows = tables["table-test-scores"]
    column = [cell[0] for cell in header].index("test perplexity")
    means = {row[0][0]: float(row[column][1]) for row in rows}
    for loss, own in (("cross_entropy", ids[:3]), ("squentropy", ids[3:])):
        assert means[loss] == pytest.approx(sum(metrics[run_id]["test/perplexity"] for run_id in own) / 3)
    assert html.index('<p class="verdict">cross_entropy is better: the test nll of squentropy is ') < html.index(
        "<table"
    )
    assert "<p>Fairness: The same " in html
    assert "Left out: seed 4 of cross_entropy (not scored with squentropy)." in html
    assert unpaired not in html
    files = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"test-scores.csv", "runs.csv", "audit.csv"} <= files
    assert len([name for name in files if name.endswith(".svg")]) == html.count("<figure ")


@pytest.mark.usefixtures("no_audit")
def test_runs_without_a_result_are_listed(store: MLflowStore) -> None:
    kinds = [
        complete_run("cross_entropy", 1),
        complete_run("cross_entropy", 2, status="RUNNING"),
        complete_run("cross_entropy", 3, status="FAILED"),
        complete_run("squentropy", 1, without=("stories.csv", "test/ece", "calibration.csv")),
        complete_run("squentropy", 2, tags={"diverged": "true"}, without=(*NO_SCORES, "stories.csv")),
        complete_run("squentropy", 3, status="KILLED"),
        complete_run("z_loss", 1, without=("val/nll",)),
        complete_run("brier", 1, tags={"text": "other"}),
        complete_run("brier", 1),
    ]
    *_, last = store.write("kinds", kinds)
    shutil.rmtree(store.folder / "kinds" / last)
    html = page_of(store, "kinds")
    states = [row[2][0] for row in PageTables(html).tables["table-unfinished"][1:]]
    assert sorted(states) == ["diverged", "failed", "killed", "running"]
    assert "Not enough runs" in html
    assert re.findall(r'<section id="([^"]*)"', html)[0] == "result"
    assert re.findall(r'<section id="([^"]*)"', html)[-1] == "runs-without-a-result"
    assert "9 runs (5 finished, 1 " in html
    other = page_of(store, "kinds", "--text", "oth")
    assert "A verdict needs two contenders, and only brier has runs with test scores on this text." in other


@pytest.mark.usefixtures("no_audit")
def test_a_store_without_finished_runs(store: MLflowStore) -> None:
    store.write("unfinished", [complete_run(status="RUNNING")])
    assert "No run has finished" in page_of(store, "unfinished")


@pytest.mark.usefixtures("no_audit")
def test_seeds_that_diverged_are_in_the_verdict(store: MLflowStore) -> None:
    seeds = [complete_run(loss, seed) for loss in ("cross_entropy", "squentropy") for seed in (1, 2)]
    store.write("diverged", [*seeds, complete_run(seed=4, tags={"diverged": "true"}, without=NO_SCORES)])
    html = page_of(store, "diverged")
    assert html.index("Left out: seed 4 of squentropy (diverged).") < html.index("What was run")


@pytest.mark.usefixtures("no_audit")
def test_another_comparison_is_shown_by_its_name(store: MLflowStore) -> None:
    losses = [complete_run(loss, seed) for loss in ("cross_entropy", "squentropy") for seed in (1, 2)]
    optimizers = [
        complete_run("focal", seed, optimizer=name) for name in ("Muon", "torch.optim.AdamW") for seed in (1, 2)
    ]
    store.write("names", [*losses, *optimizers])
    html = page_of(store, "names")
    assert "<h1>cross_entropy or squentropy: which is better?</h1>" in html
    first, second = (row[0][0] for row in PageTables(html).tables["table-comparisons"][1:])
    assert (first.split("-")[0], second.split("-")[0]) == ("loss", "optimizer")
    html = page_of(store, "names", "--show", second)
    assert "<h1>Muon or AdamW: which is better?</h1>" in html
    assert {row[0][0] for row in PageTables(html).tables["table-runs"][1:]} == {"Muon", "AdamW"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tracking-uri", "sqlite:///none.db"], "MLflow has no run of experiment 'nanosq' sqlite:///none.db; train"),
        (["--tracking-uri", "http://127.0.0.1:9"], "MLflow store http://127.0.0.1:9 cannot be read"),
        (["--experiment", "other"], "MLflow has no run of experiment 'other' here; train some: python run.py -m "),
        (["--text", "abc"], "there is no run on a text 'abc': --text takes one of t"),
        (["--show", "typo"], "no comparison 'typo': --show takes one of best"),
        (["--storage", "sqlite:///optunna.db"], "--storage: There is no database optunna.db"),
        (["--storage", "x"], "--storage: "),
        (["--study", "typo"], "--study: "),
    ],
)
@pytest.mark.usefixtures("no_audit")
def test_bad_input_is_one_line(
    store: MLflowStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    if {*arguments} & {"--storage", "--study", "--text", "--show"}:
        store.write("input", [complete_run("cross_entropy")])
        arguments = ["--experiment", "input", *arguments]
    if "--tracking-uri" not in arguments:
        mlflow.set_tracking_uri(store.uri)
    assert report.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert list(Path().iterdir()) == []

"""Passwords and tokens in URLs are neither shown nor stored, and no library reports who uses it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanosq.privacy import DEFAULTS, link, mask, mask_setting, mask_values, set_defaults
from tests.broken_loss import SECRET, TARGET
from tests.commandline import ROOT, SMALL, command, environment
from tests.mlflow_server import serve

QUICK = [*SMALL, "samples.count=0", "train.max_steps=2", "train.eval_every=2", "train.checkpoint_every=1"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("at http://alice:PLANTED@host:5000/path: refused", "at http://alice:***@host:5000/path: refused"),
        ("postgresql+psycopg://u:PLANTED@host/db", "postgresql+psycopg://u:***@host/db"),
        ("http://:PLANTED@host", "http://:***@host"),
        ("redis://al@corp:PLANTED@host", "redis://al@corp:***@host"),
        ("postgresql://u:PLANTED@PLANTED/PLANTED?PLANTED#PLANTED@host/db", "postgresql://u:***@host/db"),
        ("http://a:PLANTED@one,http://b:PLANTED@two", "http://a:***@one,http://b:***@two"),
        ("postgresql://host:5432/db?user=u&password=PLANTED@PLANTED&x=1", "postgresql://host:5432/db?user=u&password=***&x=1"),
        ("https://h/?sslpassword=PLANTED&Access_Token=PLANTED", "https://h/?sslpassword=***&Access_Token=***"),
        ("https://h/c?sv=1&sig=PLANTED&X-Amz-Signature=PLANTED", "https://h/c?sv=1&sig=***&X-Amz-Signature=***"),
        ("https://h/?auth=alice:PLANTED&user=alice%3APLANTED", "https://h/?auth=***&user=alice:***"),
        ("cannot use http://alice:PLANTED PLANTED@h:9 (refused)", "cannot use http://alice:***@h:9 (refused)"),
        ("http://a:PLANTED://PLANTED@h https://h/#token=PLANTED", "http://a:***@h https://h/#token=***"),
        ("postgresql://u:80PLANTED: no host", "postgresql://u:*** no host"),
        ("store 'u:PLANTED@h:9', tracking.uri=u:PLANTED@h", "store 'u:***@h:9', tracking.uri=u:***@h"),
        ("failed to resolve host 'PLANTED@127.0.0.1'", "failed to resolve host '***@127.0.0.1'"),
        ("['tracking.uri=http://a:PLANTED@h', 'seed=1']", "['tracking.uri=http://a:***@h', 'seed=1']"),
    ],
)  # fmt: skip
def test_passwords_and_tokens_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked
    assert SECRET not in link(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/#/experiments/1/runs/0a?workflowType=machine_learning&max_tokens=5",
        "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=nanosq&compareRunsMode=CHART",
        "sqlite:////home/me@corp:x/mlflow.db",
        "postgresql://user@host:5432/optuna?sslmode=require",
        "http://[::1]:5000",
        "see http://host:5000, and write to me@example.org",
        "postgresql://host/db?host=one:5432&host=two:5432&options=-c%20x",
        "(http://host:5000), http://host:5000. 'http://host:5000' http://{host}:{port}",
        "http://HOST:PORT/mlflow *http://host:5000* http://host:5000_",
        "http://host:5000/#/experiments/1/runs?viewStateShareKey=a&orderBy=metrics.val:asc",
        "https://arxiv.org/abs/1234?context=cs:LG",
        "cannot connect to the host me@example.org: MySQL server on http://me@host:80",
        "model.n_head=3 a: b@c",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize(
    "setting",
    [
        *["https://h/rows?f=lang:en", "corpus:part1@v2", "s3://bucket:a/x", "{a:/b:c}", "http://h:80 or me@h.org"],
        *["http://h:8080?q=a b@c", "'http://localhost:5000' data.revision=stories@v2"],
    ],
)
def test_other_settings_stay(setting: str) -> None:
    """Two of them must not become the same setting, and a preset has them as they are."""
    assert mask_setting(setting) == mask_values(setting) == setting
    assert mask_setting(f"samples.prompt={setting}") == f"samples.prompt={setting}"


def test_a_setting_is_a_whole_url() -> None:
    assert mask_setting("postgresql://u:PLANTED PLANTED@h/d?x=1") == "postgresql://u:***@h/d?x=1"
    assert mask_setting("tracking.uri='http://u:PLANTED PLANTED@h'") == "tracking.uri='http://u:***@h'"
    assert mask_values(["http://u:PLANTED@one?user=u:PLANTED", 1]) == ["http://u:***@one?user=u:***", 1]


def test_a_link_has_no_user() -> None:
    assert link("https://alice:PLANTED@host:5000/mlflow/") == "https://host:5000/mlflow"
    assert link("http://alice@host/#/experiments/1/runs/0a") == "http://host/#/experiments/1/runs/0a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("privacy")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """Serve MLflow. Return its URL with a user and a password."""
    with serve(folder) as port:
        yield f"http://alice:{SECRET}@127.0.0.1:{port}"


def check_nothing_is_planted(result: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert SECRET not in result.stdout
    assert SECRET not in result.stderr
    for path in folder.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_run_that_fails_and_is_resumed_with_another_password(server: str, folder: Path) -> None:
    settings = [*QUICK, f"loss._target_={TARGET}", f"samples.prompt=http://alice:{SECRET}@host"]
    (folder / "broken").touch()
    failed = command(*settings, f"tracking.uri={server}", cwd=folder)
    (folder / "broken").unlink()
    assert failed.returncode == 1
    assert "RuntimeError: cannot connect to https://alice:***@host?token=***" in failed.stderr
    check_nothing_is_planted(failed, folder)

    result = command(*settings, f"tracking.uri={server.replace(SECRET, SECRET[::-1])}", cwd=folder, check=True)
    assert "resumed after step 1" in result.stderr
    assert server.replace(f"alice:{SECRET}@", "") in result.stdout
    check_nothing_is_planted(result, folder)
    stored = next(folder.glob("artifacts/**/config.yaml")).read_text()
    assert f"uri: {server.replace(SECRET, '***')}" in stored
    assert "prompt: http://alice:***@host" in stored


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_grid_with_a_failing_trial(launcher: str, server: str, folder: Path) -> None:
    losses = f"loss._target_=nanosq.losses.cross_entropy,{TARGET}"
    settings = ["-m", *QUICK, "seed=2", losses, f"tracking.uri={server}", f"hydra/launcher={launcher}", "resume=never"]
    (folder / "broken").touch()
    result = command(*settings, cwd=folder, warm=launcher == "basic", PYTHONPATH=str(ROOT))
    (folder / "broken").unlink()
    assert result.returncode == 1
    assert "#1: failed: RuntimeError: cannot connect to https://alice:***@host" in result.stderr
    (trials,) = folder.glob("sweeps/grid*/trials.csv")
    assert server.replace(SECRET, "***") in trials.read_text()
    check_nothing_is_planted(result, folder)


@pytest.mark.slow
def test_an_error_that_submitit_stores(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    arguments = ["-m", *QUICK, "hydra/launcher=submitit_local", f"loss._target_={TARGET}", "seed=1"]
    result = command(*arguments, cwd=tmp_path, warm=False, PYTHONPATH=str(ROOT))
    assert "RuntimeError: cannot connect to https://alice:***@host" in result.stderr
    assert [*tmp_path.glob("sweeps/.submitit/*/*_result.pkl")]
    check_nothing_is_planted(result, tmp_path)


@pytest.mark.slow
def test_a_search_and_the_report(
    server: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from analysis.report.__main__ import main as report

    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", f"loss._target_={TARGET}", *QUICK, "seed=3"]
    variables = {"MLFLOW_TRACKING_URI": server, "MLFLOW_TRACKING_PASSWORD": SECRET, "MLFLOW_TRACKING_TOKEN": SECRET}
    (folder / "broken").touch()
    failed = command(*search, cwd=folder, **variables)
    (folder / "broken").unlink()
    assert "#0: failed: RuntimeError: cannot connect to https://alice:***@host" in failed.stderr
    check_nothing_is_planted(failed, folder)
    check_nothing_is_planted(command(*search, cwd=folder, check=True, **variables), folder)

    monkeypatch.chdir(folder)
    assert report(["--tracking-uri", server]) == 0
    assert server.replace(f"alice:{SECRET}@", "") in (folder / "report/report.html").read_text()
    assert report(["--tracking-uri", server, "--experiment", "missing"]) == 2
    check_nothing_is_planted(subprocess.CompletedProcess([], 0, *capfd.readouterr()), folder)


CLOSED = f"u:{SECRET}@127.0.0.1:9"  # a port without a server


@pytest.mark.parametrize(
    "arguments",
    [
        [f"tracking.uri=http://{CLOSED}"],
        [f"tracking.uri=postgresql://{CLOSED}/x"],
        ["-m", "hydra/sweeper=optuna", f"hydra.sweeper.storage=postgresql://{CLOSED}/x"],
        ["-m", "hydra/sweeper=optuna", f"hydra.sweeper.storage=mysql://{CLOSED}/x"],
        [f"init_from=http://{CLOSED}/best.pt"],
        ["data=text", f"data.source.train=http://{CLOSED}/text.txt"],
        [f"seed=http://{CLOSED}"],
        [f"tracking.uri={CLOSED}"],
        [f"tracking.uri=postgresql://u:{SECRET}@{CLOSED.removeprefix('u:')}/x"],
    ],
)
def test_a_server_that_does_not_answer_is_one_line_and_soon(arguments: list[str], tmp_path: Path) -> None:
    started = time.monotonic()
    result = command(*arguments, *([] if "data=text" in arguments else QUICK), cwd=tmp_path)
    assert time.monotonic() - started < 60
    assert result.returncode == 2
    (error,) = (line for line in result.stderr.splitlines() if not line.startswith("stories: "))
    assert error.startswith("error: ")
    assert "u:***@127.0.0.1:9" in error
    check_nothing_is_planted(result, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".db", ".pt"}]


RECORD_LOOK_UPS = """
import socket, sys
def getaddrinfo(host, *_, **__):
    with open("hosts.txt", "a") as file:
        print(host, file=file)
    raise socket.gaierror(socket.EAI_NONAME, "no network in this test")
socket.getaddrinfo = getaddrinfo
"""


STORE_AND_LOAD = """
from analysis import runs
from nanosq.tracking.mlflow_store import MLflowStore
with MLflowStore(experiment="nanosq").start("a name", params={}, tags={}):
    pass
runs.load()
"""


@pytest.mark.parametrize(
    "program", [["-c", STORE_AND_LOAD], pytest.param([str(ROOT / "run.py"), *QUICK], marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_telemetry_is_off_unless_it_is_wanted(program: list[str], tmp_path: Path) -> None:
    """A host that the program looks up is in hosts.txt."""
    (tmp_path / "sitecustomize.py").write_text(RECORD_LOOK_UPS)
    variables = environment() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    for name in ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST"):  # MLflow sends nothing from tests
        variables.pop(name, None)
    for wanted in (False, True):
        wish = {"MLFLOW_DISABLE_TELEMETRY": "false"} if wanted else {}
        subprocess.run([sys.executable, *program], cwd=tmp_path, env=variables | wish, check=True, capture_output=True)
        assert (tmp_path / "hosts.txt").exists() == wanted


def test_defaults_do_not_replace_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    set_defaults()
    assert {name: os.environ[name] for name in DEFAULTS} == DEFAULTS | {"HF_HUB_DISABLE_TELEMETRY": "0"}

"""Journals of several stores in one checkpoint folder: each is delivered to its own store, whatever the others do."""

import logging
import os
import shutil
import socket
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nanosq import checkpoint, sync
from nanosq.errors import InputError, NotRecordedError
from nanosq.sweeps.recording import SweepRecording
from nanosq.tracking import Store
from nanosq.tracking.journal import RECORDS, Journal, undelivered
from nanosq.tracking.mlflow_store import MLflowStore
from tests.bad_input import PASSWORD
from tests.commandline import provide_store
from tests.test_outage import bring_back, take_away

DEAD = f"http://user:{PASSWORD}@127.0.0.1:9"
NEAR = "sqlite:///mlflow.db"


@pytest.fixture
def folder(tmp_path: Path, default_store: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint folder. The working folder has an empty store, which is away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)  # for its password
    provide_store(tmp_path)
    take_away()
    return tmp_path / "checkpoints"


def store(uri: str = NEAR, experiment: str = "nanosq") -> MLflowStore:
    return MLflowStore(experiment=experiment, uri=uri)


def leave(folder: Path, name: str, of: MLflowStore) -> Journal:
    """Train a run whose store is away. Return its journal."""
    run = of.start(name, params={}, tags={"name": name}, folder=folder / name)
    with run:
        run.log({"train/loss": 1.0}, 1)
    return Journal(Path(run.unrecorded))


def recording(folder: Path, **tracking: str) -> SweepRecording:
    hydra = {"runtime": {"choices": {"hydra/launcher": "another"}}}
    return SweepRecording(OmegaConf.create({"tracking": tracking, "checkpoint_dir": str(folder), "hydra": hydra}))


def tracking() -> dict[str, str]:
    return {"_target_": "nanosq.tracking.mlflow_store.MLflowStore", "uri": near(), "experiment": "nanosq"}


def near() -> str:
    """Return an absolute address: this process has other stores of the same relative one."""
    return f"sqlite:///{Path.cwd()}/mlflow.db"


def names() -> list[str]:
    """Return the names of the runs in the store of the working folder."""
    return sorted(run.data.tags["name"] for run in store(near()).runs({}))


def test_a_store_finds_its_own_journals(folder: Path) -> None:
    own, other = leave(folder, "own", store()), leave(folder, "other", store(experiment="other"))
    leave(folder, "dead", store(DEAD))
    assert [journal.id for journal in store().undelivered(folder)] == [own.id]
    assert [journal.id for journal in store(near(), "other").undelivered(folder)] == [other.id]
    assert [journal.start["name"] for journal in store(DEAD).undelivered(folder)] == ["dead"]
    assert not Store().undelivered(folder)


def test_a_run_leaves_the_journals_of_other_stores_alone(folder: Path) -> None:
    other = leave(folder, "run", store(DEAD))
    bring_back()
    here = store(near())
    assert here.find({"name": "run"}, folder / "run") is None
    with here.start("run", params={}, tags={"name": "run"}, folder=folder / "run"):
        pass
    assert [journal.id for journal in undelivered(folder)] == [other.id]
    assert names() == ["run"]


def test_sync_goes_on_after_a_dead_store_and_a_run_that_trains(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, uri in {"a": DEAD, "b": DEAD, "c": NEAR, "d": NEAR}.items():
        leave(folder, name, store(uri))
    bring_back()
    os.chdir(folder)  # the addresses in journals do not depend on the working folder
    with checkpoint.exclusive(folder / "c"):
        assert sync.main(["."]) == 3
    shown = capsys.readouterr()
    assert "c is still training\n" in shown.out
    assert "d: http" in shown.out
    assert " and 1 more not delivered: MLflow store http://user:***@127.0.0.1:9 cannot be used (" in shown.err
    assert shown.err.count("\n") == 1
    assert sync.main([str(folder / "c")]) == 0
    os.chdir(folder.parent)
    assert names() == ["c", "d"]
    assert {journal.start["name"] for journal in undelivered(folder)} == {"a", "b"}


def test_sync_delivers_to_the_store_that_is_named(folder: Path) -> None:
    leave(folder, "a", store(DEAD))
    bring_back()
    assert sync.main(["--tracking-uri", near()]) == 0
    assert names() == ["a"]


def test_sync_delivers_to_the_store_that_was_moved_with_the_journal(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the old place has another store by now. A journal that was moved alone belongs to the old store."""
    here = folder.parent / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    provide_store(here)
    take_away()
    leave(here / "checkpoints", "a", store())
    leave(here / "checkpoints", "b", store())
    bring_back()
    moved = here.rename(folder.parent / "moved")
    here.mkdir()
    provide_store(here)
    (moved / "checkpoints/b").rename(here / "b")
    monkeypatch.chdir(moved)
    assert sync.main([]) == 0
    assert names() == ["a"]
    monkeypatch.chdir(here)
    assert sync.main(["."]) == 0
    assert names() == ["b"]


def test_a_journal_that_was_copied_belongs_to_its_old_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(folder, "a", store())
    bring_back()
    there = folder.parent / "there"
    shutil.copytree(folder, there / folder.name)
    provide_store(there)
    assert sync.main(["there"]) == 0
    assert names() == ["a"]
    monkeypatch.chdir(there)
    assert not names()


def test_a_silent_store_costs_its_time_limit_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        leave(folder, name, store(DEAD))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert sync.main(["--tracking-uri", f"http://127.0.0.1:{silent.getsockname()[1]}"]) == 3
        silent.setblocking(False)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_the_end_of_a_sweep_delivers_to_its_own_store(folder: Path) -> None:
    leave(folder, "own", store())
    leave(folder, "other", store(DEAD))
    bring_back()
    with recording(folder, **tracking()).delivered() as is_recorded:
        assert is_recorded
    assert names() == ["own"]
    with recording(folder, _target_="nanosq.tracking.Store").delivered() as is_recorded:
        assert is_recorded
    assert [journal.start["name"] for journal in undelivered(folder)] == ["other"]


def test_a_sweep_whose_store_is_away_ends_first(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    leave(folder, "own", store())
    ended = False
    with pytest.raises(NotRecordedError), recording(folder, **tracking()).delivered() as is_recorded:
        ended = not is_recorded
    assert ended
    with pytest.raises(InputError, match="a trial"), recording(folder, **tracking()).delivered():
        raise InputError("a trial has failed")
    assert "not recorded completely" in caplog.messages[-1]


def test_the_warning_is_about_this_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = leave(folder, "a", store(DEAD))
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.startswith("MLflow store http://user:***@127.0.0.1:9 cannot be used (")
    assert warning.endswith(f"): training goes on, and {journal.folder} keeps the run until the store answers")


@pytest.mark.usefixtures("default_store")
def test_passwords_are_not_in_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"http://user:{PASSWORD}@127.0.0.1:9"
    store = MLflowStore(experiment="nanosq", uri=uri)
    run = store.start("r", params={}, tags={}, folder=tmp_path)
    with run:
        run.log({"train/loss": 1.0}, 1)
    assert PASSWORD not in Path(run.unrecorded, RECORDS).read_text()
    address = store.undelivered(tmp_path)[0].start["uri"]
    with pytest.raises(InputError, match="--tracking-uri"):
        sync._store(address, "nanosq", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert sync._store(address, "nanosq", None).connection.uri == uri

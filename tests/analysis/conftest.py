"""One MLflow store for all tests of the analysis, because creating one takes seconds."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from matplotlib.text import Text
from mlflow.entities import Metric, Param, RunTag

from analysis import figures, runs
from analysis.recorded_run import RecordedRun
from tests.commandline import provide_store


@dataclass
class MLflowStore:
    """A store in which every test has an experiment of its own."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def write(self, experiment: str, recorded: Iterable[RecordedRun], *, without: tuple[str, ...] = ()) -> list[str]:
        """Write runs as run.py does, without some artifacts, and return their ids."""
        client = mlflow.MlflowClient(self.uri)
        existing = client.get_experiment_by_name(experiment)
        location = (self.folder / experiment).as_uri()
        experiment_id = existing.experiment_id if existing else client.create_experiment(experiment, location)
        ids = []
        for run in recorded:
            run_id = client.create_run(experiment_id, start_time=run.started, run_name=run.name).info.run_id
            history = [(int(row["step"]), row["metric"], float(row["value"])) for row in run.rows("curves.csv")]
            last = [(0, key, value) for key, value in run.metrics.items() if key not in {key for _, key, _ in history}]
            client.log_batch(
                run_id,
                metrics=[Metric(key, value, run.started, step) for step, key, value in [*history, *last]],
                params=[Param(key, value) for key, value in run.params.items()],
                tags=[RunTag(key, value) for key, value in run.tags.items()],
            )
            for name, text in run.texts.items():
                if text is not None and name not in without:
                    client.log_text(run_id, text, name)
            if run.status != "RUNNING":
                client.set_terminated(run_id, run.status)
            ids.append(run_id)
        return ids

    def load(self, experiment: str) -> list[RecordedRun]:
        return runs.load(self.uri, experiment)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> MLflowStore:
    folder = tmp_path_factory.mktemp("mlflow")
    provide_store(folder)
    return MLflowStore(folder)


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The drawings of the figures that a test makes, by name."""
    kept: dict[str, Any] = {}
    finish = figures.finish

    def keep(drawing: Any, name: str, caption: str) -> figures.Figure:
        drawing.draw_without_rendering()
        sizes = [text.get_fontsize() for text in drawing.findobj(Text) if text.get_text() and text.get_visible()]
        assert min(sizes) >= figures.STYLE["font.size"], f"{name}: text of {min(sizes)} points"
        kept[name] = drawing
        return finish(drawing, name, caption)

    monkeypatch.setattr(figures, "finish", keep)
    return kept

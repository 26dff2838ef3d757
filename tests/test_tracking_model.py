"""The model of a run in MLflow: what is recorded about it, and the copy that MLflow serves."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.entities import LoggedModel, LoggedModelStatus, Run

from nanosq import pretrained
from nanosq.tracking import Store
from tests.commandline import command, environment, runs
from tests.test_kept_model import OVERFIT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of one run, whose best step is not its last one."""
    folder = tmp_path_factory.mktemp("model")
    command("loss=squentropy", *OVERFIT, "tracking.log_model=true", cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return runs(folder)[0]


@pytest.fixture(scope="module")
def client(folder: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="module")
def model(run: Run, client: mlflow.MlflowClient) -> LoggedModel:
    (output,) = run.outputs.model_outputs
    return client.get_logged_model(output.model_id)


@pytest.fixture(scope="module")
def served(model: LoggedModel) -> mlflow.pyfunc.PyFuncModel:
    return mlflow.pyfunc.load_model(model.artifact_location)


def test_the_model_has_the_scores_of_the_run(model: LoggedModel, run: Run, client: mlflow.MlflowClient) -> None:
    assert (model.name, model.status, model.source_run_id) == (
        "squentropy tiny stories",
        LoggedModelStatus.READY,
        run.info.run_id,
    )
    scores = {key: value for key, value in run.data.metrics.items() if key.startswith(("val/", "test/"))}
    assert {metric.key: metric.value for metric in model.metrics} == scores
    assert len(scores) > 20
    (data,) = run.inputs.dataset_inputs
    found = {(metric.dataset_name, metric.dataset_digest) for metric in model.metrics}
    assert found == {(data.dataset.name, data.dataset.digest)} == {("stories", run.data.tags["text"])}
    assert all(
        split["documents"] and split["tokens"] < split["bytes"] for split in json.loads(data.dataset.profile).values()
    )
    evaluations = client.get_metric_history(run.info.run_id, "val/perplexity")
    best = min(evaluations, key=lambda point: point.value).step
    assert [output.step for output in run.outputs.model_outputs] == [best]
    assert 0 < best < 60


def test_the_model_has_the_parameters_and_the_description_of_the_run(model: LoggedModel, run: Run) -> None:
    expected = {key: value for key, value in run.data.params.items() if key.split(".")[0] in {"model", "loss"}}
    assert model.params == expected
    assert (model.params["model.n_embd"], model.params["loss"]) == ("32", "squentropy")
    for key in ("parameters", "vocabulary", "mlflow.note.content", "mlflow.source.name", "mlflow.user"):
        assert model.tags[key] == run.data.tags[key], key
    assert "tracking" not in "".join(run.data.params)


def test_where_the_model_is_stored_and_what_it_holds(model: LoggedModel, run: Run, folder: Path) -> None:
    stored = Path(model.artifact_location)
    assert stored.is_relative_to(folder / "mlruns")
    best = Path(run.info.artifact_uri) / "checkpoint/best.pt"
    assert (stored / "artifacts/best.pt").read_bytes() == best.read_bytes()
    assert (stored / "code/nanosq/model.py").exists()
    assert not [*stored.rglob("*.pkl"), *stored.rglob("*.pyc")]
    names = {line.split("==")[0] for line in (stored / "requirements.txt").read_text().splitlines()}
    assert {"torch", "tiktoken", "mlflow"} < names
    assert not names & {"hydra-core", "optuna", "datasets", "nanosq"}


def nll_by_hand(run: Run, text: str) -> float:
    """Return the mean nll of the tokens of a text that fits into a window."""
    trained = pretrained.load(f"{run.info.artifact_uri}/checkpoint/best.pt", Store())
    network, ids = trained.build(), trained.tokenizer.encode([text])[0].tolist()
    with torch.no_grad():
        hidden_TD = network(torch.tensor([[trained.tokenizer.end_of_text, *ids]]))[0]
        log_probability_TV = (hidden_TD @ network.token_embedding.weight.T).double().log_softmax(dim=1)
    return -float(np.mean([log_probability_TV[position, token] for position, token in enumerate(ids)]))


def test_the_nll_of_prompts(served: mlflow.pyfunc.PyFuncModel, run: Run) -> None:
    prompts = ["Once upon a time, there was a dog.", "One day", "a"]
    scored = served.predict(pd.DataFrame({"prompt": prompts}), params={"max_new_tokens": 0})
    assert scored["text"].tolist() == prompts
    assert scored["nll"].tolist() == pytest.approx([nll_by_hand(run, prompt) for prompt in prompts], rel=1e-5)


def test_the_nll_of_a_continued_text_is_that_of_the_whole_text(served: mlflow.pyfunc.PyFuncModel) -> None:
    written = served.predict(pd.DataFrame({"prompt": ["Once upon a time", ""]}), params={"max_new_tokens": 9})
    scored = served.predict(written[["text"]].rename(columns={"text": "prompt"}), params={"max_new_tokens": 0})
    assert scored["nll"].tolist() == pytest.approx(written["nll"].tolist())


def test_the_text_of_a_prompt(served: mlflow.pyfunc.PyFuncModel) -> None:
    def write(*prompts: str, **params: float) -> list[str]:
        return list(served.predict(pd.DataFrame({"prompt": prompts}), params={"max_new_tokens": 8, **params})["text"])

    first, other, again = write("Once upon", "One day", "Once upon")
    assert first == again == write("Once upon", seed=0)[0] != write("Once upon", seed=1)[0]
    assert len(first) > len("Once upon")
    assert (first.startswith("Once upon"), other.startswith("One day")) == (True, True)
    greedy = write("Once", temperature=0, seed=1)
    assert greedy == write("Once", temperature=0, seed=2) == write("Once", top_k=1) == write("Once", top_p=1e-9)
    assert len(served.predict(pd.DataFrame({"prompt": ["Once"]}))) == 1  # all parameters have defaults


def test_an_empty_text_has_no_nll(served: mlflow.pyfunc.PyFuncModel) -> None:
    empty = served.predict(pd.DataFrame({"prompt": ["", "a"]}), params={"max_new_tokens": 0})
    assert json.loads(empty["nll"].to_json(orient="values"))[0] is None
    assert empty["nll"][1] > 0


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ("One", {"temperature": -1.0}, "temperature=-1.0: must be at least 0"),
        ("One", {"max_new_tokens": -3}, "max_new_tokens=-3: must be at least 0"),
        ("One", {"seed": -1}, "seed must not be negative, not -1"),
        (None, {}, "prompt 2 is no text: an empty text begins a new document"),
    ],
)
def test_bad_input_is_one_line(
    served: mlflow.pyfunc.PyFuncModel, prompt: str | None, params: dict[str, float], message: str
) -> None:
    """A server answers any other error with a traceback."""
    with pytest.raises(mlflow.MlflowException) as error:
        served.predict(pd.DataFrame({"prompt": ["a", prompt]}), params=params)
    assert error.value.message == message
    assert error.value.get_http_status_code() == 400


@pytest.mark.slow
def test_the_model_is_served(model: LoggedModel, run: Run, tmp_path: Path) -> None:
    """The server imports the copy of nanosq that is stored with the model, and none of the libraries for training."""
    others = ["hydra", "omegaconf", "optuna", "datasets", "pyarrow.dataset", "transformers", "safetensors"]
    script = f"""
import sys
sys.modules |= dict.fromkeys({others}, None)  # importing them is an error
import mlflow, pandas
model = mlflow.pyfunc.load_model({model.artifact_location!r})
model.predict(pandas.DataFrame({{"prompt": ["Once"]}}), params={{"max_new_tokens": 2}})
print(sys.modules["nanosq.model"].__file__)
"""
    loaded = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == f"{model.artifact_location}/code/nanosq/model.py"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = ["models", "serve", "-m", model.artifact_location, "--env-manager", "local", "--port", port]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *arguments],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    body = {"dataframe_records": [{"prompt": "One day"}, {"prompt": ""}], "params": {"max_new_tokens": 0}}
    try:
        answer = post(f"http://127.0.0.1:{port}/invocations", body)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    day, empty = answer["predictions"]
    assert day == {"text": "One day", "nll": pytest.approx(nll_by_hand(run, "One day"), rel=1e-5)}
    assert empty == {"text": "", "nll": None}


def post(url: str, body: object) -> dict[str, list[dict[str, object]]]:
    """Send a request to a server, as soon as it has started. Refuse an answer that is not JSON, such as NaN."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    for _ in range(240):
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response, parse_constant=pytest.fail)
        except urllib.error.URLError:
            time.sleep(0.5)
    raise TimeoutError(url)

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Several workers with a thread for each core would slow each other down. PyTorch reads it when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A deadline would fail on a busy machine, not on a wrong result.
settings.register_profile("nanosq", deadline=None, max_examples=50)
settings.register_profile("long", deadline=None, max_examples=10_000)
settings.load_profile("nanosq")


@pytest.fixture(scope="session", autouse=True)
def template_of_stores(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all workers copy the same empty MLflow store."""
    from tests import commandline

    folder = tmp_path_factory.getbasetemp()
    commandline.TEMPLATE = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "store"


@pytest.fixture
def default_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let MLflow's default store be that of the working folder or of MLFLOW_TRACKING_URI, whatever other tests set."""
    import mlflow

    mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture
def use_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Yield a function that sets the address of the Hugging Face hub. Its cache is empty, and there is no proxy."""
    import huggingface_hub
    from huggingface_hub import constants

    def use_endpoint(endpoint: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    for name in [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.close_session()
    yield use_endpoint
    huggingface_hub.close_session()


@pytest.fixture
def byte_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a random model whose tokens are bytes, in the working directory."""
    import torch

    from nanosq import checkpoint, pretrained
    from nanosq.data import tokenizers
    from nanosq.model import GPT

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    tokenizer = tokenizers.byte_level()
    architecture = {"block_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 16, "embedding_std": 0.5}
    model = GPT(tokenizer.vocab_size, **architecture)
    facts = {"settings": {"model._target_": pretrained.TARGET}, "tokenizer": tokenizer.state()}
    path = tmp_path / "best.pt"
    checkpoint.save(path, {**facts, "architecture": architecture, "model": model.state_dict()})
    return path

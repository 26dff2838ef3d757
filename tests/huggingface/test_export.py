"""`python -m nanosq.export`: a trained run becomes a folder that transformers loads, or nothing is written."""

import json
import logging
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from analysis.configuration import compose
from nanosq import checkpoint, evaluate, export, identity, pretrained
from nanosq.data.write import write_split
from nanosq.huggingface import tokenizer as huggingface
from nanosq.huggingface.card import card
from nanosq.tracking.mlflow_store import MLflowStore
from tests.commandline import SMALL, command, runs
from tests.huggingface.models import logits


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run."""
    folder = tmp_path_factory.mktemp("trained")
    command(*SMALL, "data.tokenizer.pad_to=3000", cwd=folder, check=True)
    return folder


@pytest.fixture
def run(trained: Path, default_store: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Return the run, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained}/mlflow.db")
    return runs(trained)[0]


def test_transformers_loads_a_run(run, tmp_path: Path, capsys, recwarn, caplog) -> None:
    assert export.main([run.info.run_id, "out"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert {path.name for path in Path("out").iterdir()} == {line.split()[0] for line in printed[1:-1]}
    assert printed[-1] == "next: python -m nanosq.generate out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len({path.stat().st_mode for path in Path("out").iterdir()}) == 1

    ours = pretrained.load(run.info.run_id, MLflowStore())
    with caplog.at_level(logging.WARNING):
        model = AutoModelForCausalLM.from_pretrained("out").eval()
        tokenizer = AutoTokenizer.from_pretrained("out")
    assert not caplog.records
    assert not recwarn.list
    text = "Once there was a dog. \n\n"
    ids = [ours.tokenizer.end_of_text, *ours.tokenizer.encode([text])[0].tolist()]
    tokens_BT = tokenizer(tokenizer.bos_token + text, return_tensors="pt")["input_ids"]
    assert tokens_BT.tolist() == [ids]
    torch.testing.assert_close(logits(model, tokens_BT), logits(ours.build(), tokens_BT), rtol=0, atol=1e-5)
    assert model.config.vocab_size == 3000 > len(tokenizer)

    again = pretrained.load("out", MLflowStore())
    assert again.tokenizer == ours.tokenizer
    assert again.architecture.items() <= {"activation": "gelu", **ours.architecture}.items()


def test_an_exported_run_has_the_scores_of_the_run_and_of_transformers(run, trained: Path, capsys) -> None:
    """The first in the precision of the run's scores, which the folder names, the second in fp32."""
    (corpus,) = (trained / "cache").glob("stories-*")
    write_split(corpus, "test", Path("test.txt"))
    assert export.main([run.info.run_id, "out"]) == 0
    capsys.readouterr()

    def nll(*options: str) -> float:
        assert evaluate.main(["out", "--data", "test.txt", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["nll"]

    assert nll() == pytest.approx(run.data.metrics["test/nll"], abs=1e-5)
    model = AutoModelForCausalLM.from_pretrained("out").eval()
    tokenizer = AutoTokenizer.from_pretrained("out")
    total, n_tokens, size = 0.0, 0, model.config.n_positions
    for text in Path("test.txt").read_text().split("<|endoftext|>")[:-1]:
        ids = tokenizer(f"{tokenizer.bos_token}{text.strip()}{tokenizer.eos_token}", return_tensors="pt")["input_ids"]
        scored = 0
        for begin in range(0, ids.shape[1], size // 2):  # half of a window is the context of the next one
            window = ids[:, begin : begin + size + 1]
            if (end := begin + window.shape[1] - 1) > scored:
                window = ids[:, max(end - size, 0) : end + 1]
                with torch.no_grad():
                    log_p = model(window[:, :-1]).logits[0].double().log_softmax(-1)
                nll_T = -log_p[range(len(log_p)), window[0, 1:]]
                total += float(nll_T[len(nll_T) - (end - scored) :].sum())
                n_tokens += end - scored
                scored = end
    assert nll("--precision", "fp32") == pytest.approx(total / n_tokens, abs=1e-5)


def test_the_card_says_how_it_was_trained(run, capsys) -> None:
    assert export.main([run.info.run_id, "out"]) == 0
    _, about, text = Path("out/README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(about)
    assert "license" not in metadata
    (result,) = metadata["model-index"][0]["results"]
    scores = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert scores["nll"] == run.data.metrics["test/nll"]
    for split in ("val", "test"):
        assert f"{run.data.metrics[f'{split}/perplexity']:.4f}" in text
    again = re.search(r"```sh\n(.*?)\n```", text)[1]
    assert identity.config_hash(compose(shlex.split(again)[2:])) == run.data.tags["config_hash"]
    assert run.data.tags["text"] in text
    assert f"Scores in {run.data.tags['hardware'].split()[1]}." in text
    assert "| train.max_steps | 6 |" in text
    assert "MIT" in text
    snippet = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)[1]
    torch.manual_seed(0)
    exec(snippet, {"folder": "out"})
    assert capsys.readouterr().out.splitlines()[-1]


def test_export_of_best_pt_and_of_an_export(run, tmp_path: Path) -> None:
    path = MLflowStore().checkpoint(run.info.run_id, "best.pt")
    assert export.main([str(path), "first"]) == 0
    config = Path("first/tokenizer_config.json")
    settings = json.loads(config.read_text()) | {"pad_token": "<|endoftext|>"}  # which ours do not have
    config.write_text(json.dumps(settings, indent=2) + "\n")
    assert export.main(["first", "second/below"]) == 0
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        assert Path("first", name).read_bytes() == Path("second/below", name).read_bytes()
    assert export.main([run.info.run_id, "third"]) == 0
    assert Path("first/README.md").read_text() == Path("third/README.md").read_text()


@pytest.mark.parametrize("problem", ["another store", "other weights"])
def test_a_checkpoint_whose_scores_are_not_known(problem: str, run, tmp_path: Path) -> None:
    path = MLflowStore().checkpoint(run.info.run_id, "best.pt")
    if problem == "other weights":
        saved = checkpoint.load(path)
        saved["model"]["final_norm.weight"] += 1
        path = tmp_path / "last.pt"
        checkpoint.save(path, saved)
    store = ["--tracking-uri", f"sqlite:///{tmp_path}/other.db"] if problem == "another store" else []
    assert export.main([str(path), "out", *store]) == 0
    card = Path("out/README.md").read_text()
    assert run.data.tags["text"] in card  # a checkpoint knows its data
    assert not [text for text in ("Scores in", "## Metrics", "python run.py") if text in card]


def test_passwords_are_masked(run) -> None:
    model = pretrained.load(run.info.run_id, MLflowStore())
    assert "secret" not in card(model, {"command": "python run.py data.source.path=s3://me:secret@host/x"}, {})


def refused(capsys, *arguments: str) -> str:
    before = sorted(Path().rglob("*"))
    assert export.main([*arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(Path().rglob("*")) == before
    return line


def test_nothing_is_overwritten(run, capsys, tmp_path: Path) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    for name in ("full", "full/file"):
        assert f"{name} exists already" in refused(capsys, run.info.run_id, name)
    Path("empty").mkdir()
    inode = Path("empty").stat().st_ino
    assert export.main([run.info.run_id, "empty"]) == 0
    assert Path("empty").stat().st_ino == inode  # it may be the working directory of a shell


def test_the_working_directory(run, capsys, monkeypatch, tmp_path: Path) -> None:
    Path("inner").mkdir()
    monkeypatch.chdir("inner")
    assert export.main([run.info.run_id, "."]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:-1]}
    assert names == {path.name for path in Path().iterdir()} >= {"config.json", "model.safetensors", "README.md"}
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


def test_a_place_that_cannot_be_written(run, capsys, monkeypatch) -> None:
    Path("odd.txt").touch()
    path = Path("odd.txt").resolve()
    # before the model is looked for
    assert f"cannot write odd.txt/x: {path} is not a folder" in refused(capsys, "nowhere", "odd.txt/x")
    assert "cannot write /proc/x: " in refused(capsys, run.info.run_id, "/proc/x")

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("nanosq.filesystem.TemporaryFile", refuse)  # the superuser, who may run the tests, may write
    assert "cannot write out: Permission denied" in refused(capsys, "nowhere", "out")


@pytest.mark.parametrize("name", ["0" * 32, "missing.pt", "a/missing.pt"])
def test_a_model_that_does_not_exist(name: str, run, capsys) -> None:
    assert name in refused(capsys, name, "out")


def test_a_failure_leaves_nothing(run, capsys, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(huggingface, "write", fail)
    assert "cannot write out: no space left" in refused(capsys, run.info.run_id, "out")
    Path("empty").mkdir()
    assert "cannot write empty: no space left" in refused(capsys, run.info.run_id, "empty")


def test_a_model_of_another_class(run, capsys, tmp_path: Path) -> None:
    saved = checkpoint.load(MLflowStore().checkpoint(run.info.run_id, "best.pt"))
    saved["settings"]["model._target_"] = "my.Model"
    checkpoint.save(Path("other.pt"), saved)
    assert "a model of the class my.Model" in refused(capsys, "other.pt", "out")


def test_without_the_extra_a_command_says_what_to_install(run, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert "pip install 'nanosq[hf]'" in refused(capsys, run.info.run_id, "out")

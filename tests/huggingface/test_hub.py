"""Models of the Hugging Face hub: downloaded once, without pickles, and one line if there are none."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nanosq import pretrained
from nanosq.data import tokenizers
from nanosq.export import export
from nanosq.model import GPT
from nanosq.pretrained import Pretrained
from nanosq.tracking import Store
from tests.hub import answering, nameless, refused, silent

NAME, REVISION = "someone/tiny-gpt2", "0123456789abcdef0123456789abcdef01234567"
ARCHITECTURE = {"block_size": 8, "n_layer": 1, "n_head": 1, "n_embd": 8}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    weights = GPT(257, **ARCHITECTURE).state_dict()
    export(Pretrained(tmp_path, ARCHITECTURE, weights, tokenizers.byte_level(), {}), tmp_path / "model", "A model.")
    contents = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    return contents | {"pytorch_model.bin": b"a pickle", "flax_model.msgpack": b"large"}


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json"])
def test_a_model_is_downloaded_once(lost: str, use_hub: Callable[[str], None], files: dict[str, bytes]) -> None:
    with answering(NAME, REVISION, files) as (endpoint, requests):
        use_hub(endpoint)
        loaded = pretrained.load(NAME, Store())
        assert loaded.tokenizer == tokenizers.byte_level()
        assert loaded.build().block_size == 8
        assert {path.name for path in loaded.path.iterdir()} == files.keys() - {
            *("README.md", "pytorch_model.bin", "flax_model.msgpack")
        }
        requests.clear()
        assert pretrained.locate(NAME, Store()) == loaded.path
        assert requests == []
    (loaded.path / lost).unlink()
    with refused() as endpoint:
        use_hub(endpoint)
        with pytest.raises(ValueError, match="the hub failed"):  # what is left is not taken for a model
            pretrained.load(NAME, Store())


@pytest.mark.parametrize("library", ["safetensors.torch", "tokenizers"])
def test_nothing_is_downloaded_that_cannot_be_read(
    library: str, use_hub: Callable[[str], None], files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with answering(NAME, REVISION, files) as (endpoint, requests):
        use_hub(endpoint)
        with pytest.raises(ValueError, match=r"needs (safetensors|tokenizers).*: pip install 'nanosq\[hf\]'"):
            pretrained.load(NAME, Store())
        assert requests == []


@pytest.mark.parametrize("hub", [refused, silent, nameless])
def test_a_hub_that_does_not_answer_is_one_line(hub: Callable, use_hub: Callable[[str], None]) -> None:
    with hub() as endpoint:
        use_hub(endpoint)
        with pytest.raises(ValueError, match=rf"{NAME} is no file or folder.* and the hub failed \(") as caught:
            pretrained.load(NAME, Store())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [NAME, "someone/..--bad", "x/" + "y" * 200])
def test_a_name_that_the_hub_does_not_have_is_one_line(name: str, use_hub: Callable[[str], None]) -> None:
    with answering("another/model", REVISION, {}) as (endpoint, _):
        use_hub(endpoint)
        with pytest.raises(ValueError, match=r"the hub failed \(|there is no model") as caught:
            pretrained.load(name, Store())
    assert "\n" not in str(caught.value)


def test_only_pickles(use_hub: Callable[[str], None]) -> None:
    with answering(NAME, REVISION, {"config.json": b"{}", "pytorch_model.bin": b""}) as (endpoint, _):
        use_hub(endpoint)
        with pytest.raises(
            ValueError, match=r"the hub failed \(OSError: someone/tiny-gpt2 lacks some of .*safetensors"
        ):
            pretrained.load(NAME, Store())


def test_a_path_comes_first(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).parent.mkdir()
    (tmp_path / "model").rename(NAME)
    assert pretrained.load(NAME, Store()).path == Path(NAME)
    Path(NAME).rename("0" * 32)
    assert pretrained.locate("0" * 32, Store()) == Path("0" * 32)

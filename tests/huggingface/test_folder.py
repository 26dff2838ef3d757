"""Folders that are refused, each in one line, and nothing of them is executed."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nanosq import pretrained
from nanosq.huggingface import folder
from nanosq.tracking import Store
from tests.huggingface.models import END, TINY, random_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict[str, Tensor]]:
    path = tmp_path_factory.mktemp("model")
    random_model(**TINY, **END).save_pretrained(path)
    return json.loads((path / "config.json").read_text()), load_file(path / "model.safetensors")


@pytest.fixture
def write(saved: tuple[dict, dict[str, Tensor]], tmp_path: Path) -> Callable[..., Path]:
    def write_folder(tensors: dict[str, Tensor | None] | None = None, **settings: object) -> Path:
        config, weights = saved
        (tmp_path / "config.json").write_text(json.dumps(config | settings))
        changed = {name: tensor for name, tensor in {**weights, **(tensors or {})}.items() if tensor is not None}
        save_file(changed, tmp_path / "model.safetensors")
        return tmp_path

    return write_folder


def refusal(path: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the caller checks the message
        folder.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


SETTINGS = {
    "model_type": ("llama", "model_type is 'llama', and only 'gpt2' is supported"),
    "architectures": (["GPT2ForSequenceClassification"], "only GPT2LMHeadModel is supported"),
    "activation_function": (
        "relu",
        "activation_function=relu is not supported, only gelu_new, gelu_pytorch_tanh, gelu",
    ),
    "layer_norm_epsilon": (1e-6, "layer_norm_epsilon=1e-06 is not supported, only 1e-05"),
    "n_inner": (100, "n_inner=100 is not supported, only 4 x n_embd, which is 128"),
    "tie_word_embeddings": (False, "tie_word_embeddings=False is not supported, only True"),
    "scale_attn_weights": (False, "scale_attn_weights=False is not supported, only True"),
    "scale_attn_by_inverse_layer_idx": (True, "scale_attn_by_inverse_layer_idx=True is not supported, only False"),
    "add_cross_attention": (True, "add_cross_attention=True is not supported, only False"),
    "n_head": (5, "n_embd=32 is not divisible by n_head=5"),
    "resid_pdrop": ("much", "resid_pdrop must be a number"),
}


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_that_is_not_supported(key: str, write: Callable[..., Path]) -> None:
    value, message = SETTINGS[key]
    assert message in refusal(write(**{key: value}))


def test_the_precision_of_the_scores(write: Callable[..., Path]) -> None:
    assert folder.facts(write()) == {}
    assert folder.facts(write(nanosq_precision="bf16")) == {"precision": "bf16"}
    for value in ("fp8", "auto", 16, ["fp32"]):
        with pytest.raises(ValueError, match=r"config.json: nanosq_precision must be one of fp32, bf16, fp16, not "):
            folder.facts(write(nanosq_precision=value))


@pytest.mark.parametrize("value", [0, -1, 2.5, "many", True, None, [2]])
@pytest.mark.parametrize("key", folder.SIZES)
def test_a_size_that_is_no_positive_integer(key: str, value: object, write: Callable[..., Path]) -> None:
    assert f"{key} must be a positive integer, not {value!r}" in refusal(write(**{key: value}))


SIZES = {
    "vocab_size": "the tensor wte.weight has the shape (300, 32); its shape should be (1000000000000, 32)",
    "n_positions": "the tensor wpe.weight has the shape (64, 32); its shape should be (1000000000000, 32)",
    "n_embd": "the tensor wte.weight has the shape (300, 32); its shape should be (300, 1000000000000)",
    "n_layer": "the tensor h.2.ln_1.weight is missing; its shape should be (32,)",
}


@pytest.mark.parametrize("key", SIZES)
def test_a_huge_size_costs_no_memory(key: str, write: Callable[..., Path]) -> None:
    assert SIZES[key] in refusal(write(**{key: 10**12}, n_inner=None))


TENSORS = {
    "missing": ("transformer.h.1.mlp.c_fc.bias", None, "h.1.mlp.c_fc.bias is missing; its shape should be (128,)"),
    "transposed": (
        "transformer.h.0.attn.c_attn.weight",
        torch.zeros(96, 32),
        "h.0.attn.c_attn.weight has the shape (96, 32); its shape should be (32, 96)",
    ),
    "unknown": ("transformer.h.0.adapter", torch.zeros(3), "h.0.adapter of the shape (3,) is not one of GPT-2"),
    "of another layer": ("transformer.h.2.ln_1.weight", torch.zeros(32), "h.2.ln_1.weight of the shape (32,) is not"),
    "another head": ("lm_head.weight", torch.zeros(300, 32), "lm_head.weight must equal wte.weight"),
    "a small head": ("lm_head.weight", torch.zeros(3, 2), "lm_head.weight must equal wte.weight"),
    "integers": (
        "transformer.ln_f.bias",
        torch.zeros(32, dtype=torch.int64),
        "floating-point numbers, not torch.int64",
    ),
    "twice": ("ln_f.bias", torch.zeros(32), "tensors with the prefix transformer. and again without it"),
}


@pytest.mark.parametrize("problem", TENSORS)
def test_a_wrong_tensor(problem: str, write: Callable[..., Path]) -> None:
    name, tensor, message = TENSORS[problem]
    assert message in refusal(write({name: tensor}))


def test_no_config(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path} has no config.json"


@pytest.mark.parametrize(
    "text",
    ["", "[", "[" * 100_000, "null", "[1]", '"gpt2"', "{} {}", "\xff", '{"n_layer": ' + "9" * 5000 + "}"],
    ids=range(9),
)
def test_a_config_that_is_no_object(text: str, write: Callable[..., Path]) -> None:
    path = write()
    (path / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in refusal(path)


@pytest.mark.parametrize("size", [0, 4, 100, 20_000])
def test_a_truncated_file(size: int, write: Callable[..., Path]) -> None:
    file = write() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert "damaged, or not in the format safetensors" in refusal(file.parent)


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "other.safetensors", "a.bin", ""])
def test_shards_lie_in_the_folder(name: str, write: Callable[..., Path]) -> None:
    path = write()
    inner = path / "inner"
    inner.mkdir()
    (path / "config.json").rename(inner / "config.json")
    (inner / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    assert "no safetensors file of this folder" in refusal(inner) or f"has no {name}, which" in refusal(inner)


class Bomb:
    """It creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "best.pt"])
@pytest.mark.parametrize("dump", [lambda bomb: pickle.dumps(bomb), None], ids=["pickle", "torch"])
def test_a_pickle_is_not_executed(
    name: str, dump: Callable[[Bomb], bytes] | None, write: Callable[..., Path], tmp_path: Path
) -> None:
    path, created = write(), tmp_path / "created"
    (path / "model.safetensors").unlink()
    if dump is None:
        torch.save({"model": Bomb(created)}, path / name)
    else:
        (path / name).write_bytes(dump(Bomb(created)))
    for model in (path, path / name):
        with pytest.raises(ValueError, match=r"safetensors|not a checkpoint of nanosq") as caught:
            pretrained.load(str(model), Store())
        assert "\n" not in str(caught.value)
    assert not created.exists()
    if dump is not None:
        pickle.loads((path / name).read_bytes())  # to show that it would
        assert created.exists()


def test_advice_for_a_folder_with_only_a_pickle(write: Callable[..., Path]) -> None:
    path = write()
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    assert "pytorch_model.bin may be a pickle, which is not read; convert it to safetensors" in refusal(path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_the_folder(name: str, write: Callable[..., Path]) -> None:
    path = write()
    with pytest.raises(ValueError, match=f"is a file of a model: give its folder, '{path}'"):
        pretrained.load(str(path / name), Store())


def test_the_digest_is_that_of_all_files(write: Callable[..., Path]) -> None:
    path = write()
    digests = [pretrained.digest(path)]
    (path / "README.md").write_text("has no effect")
    assert pretrained.digest(path) == digests[0]
    (path / "tokenizer.json").write_text("{}")
    digests.append(pretrained.digest(path))
    digests.append(pretrained.digest(write(n_head=2)))
    digests.append(pretrained.digest(write({"lm_head.weight": torch.zeros(2)})))
    assert len(set(digests)) == 4

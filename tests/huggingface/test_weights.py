"""A model of transformers and ours compute the same, after import and after export."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from nanosq.data import tokenizers
from nanosq.export import export
from nanosq.huggingface import folder
from nanosq.huggingface.weights import export_weights
from nanosq.model import GPT
from nanosq.pretrained import Pretrained
from tests.huggingface.models import END, TINY, logits, random_model, tokens

SHAPES = {
    "tiny": TINY | END | {"activation_function": "gelu"},
    "one block": END | {"vocab_size": 257, "n_positions": 1000, "n_embd": 24, "n_layer": 1, "n_head": 3},
    "gpt2": {},
}


def check_same(model: tuple[Mapping, Mapping], expected: tuple[Mapping, Mapping]) -> None:
    assert model[0] == expected[0]
    assert_close(dict(model[1]), dict(expected[1]), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [pytest.param(name, marks=[pytest.mark.slow] * (name == "gpt2")) for name in SHAPES])
def test_import_and_export_keep_the_logits(shape: str, tmp_path: Path) -> None:
    theirs = random_model(**SHAPES[shape])
    theirs.save_pretrained(tmp_path / "theirs")
    architecture, weights = folder.read(tmp_path / "theirs")
    n = theirs.config.vocab_size
    text = tokenizers.gpt2() if shape == "gpt2" else tokenizers.byte_level(pad_to=n)
    ours = Pretrained(tmp_path / "theirs", architecture, weights, text, {})
    tokens_BT = tokens(theirs)
    assert tokens_BT.numel() >= 1000
    assert_close(logits(ours.build(), tokens_BT), logits(theirs, tokens_BT), rtol=0, atol=1e-5)
    export(ours, tmp_path / "ours", "")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert_close(loaded.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    for key in (*TINY, "activation_function", "layer_norm_epsilon", "n_inner"):
        assert getattr(loaded.config, key) == getattr(theirs.config, key)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("bias", [False, True])
def test_export_and_import_keep_a_model_of_ours(bias: bool, activation: str, tmp_path: Path) -> None:
    architecture = {"block_size": 1000, "n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.2}
    architecture |= {"bias": bias, "activation": activation}
    model = GPT(300, **architecture).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    folder.write(tmp_path, architecture, model.state_dict(), end_of_text=256)
    check_same(folder.read(tmp_path), (architecture, model.state_dict()))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens_BT = tokens(theirs)
    assert_close(logits(theirs, tokens_BT), logits(model, tokens_BT), rtol=0, atol=1e-5)


def test_biases_that_were_trained_elsewhere_are_kept(tmp_path: Path) -> None:
    model = GPT(300, block_size=8, n_layer=1, n_head=1, n_embd=8, bias=False)
    sizes = {"block_size": 8, "n_layer": 1, "n_head": 1, "n_embd": 8}
    folder.write(tmp_path, sizes, model.state_dict(), end_of_text=256)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.nn.init.ones_(theirs.transformer.ln_f.bias)
    theirs.save_pretrained(tmp_path)
    architecture, weights = folder.read(tmp_path)
    assert architecture["bias"]
    assert weights["final_norm.bias"].eq(1).all()


def test_half_precision_becomes_single_precision(tmp_path: Path) -> None:
    theirs = random_model(**TINY, **END)
    for dtype in (torch.float16, torch.bfloat16):
        theirs.to(dtype).save_pretrained(tmp_path)
        weights = folder.read(tmp_path)[1]
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        assert weights["token_embedding.weight"].equal(theirs.transformer.wte.weight.float())


def test_shards_are_read(tmp_path: Path) -> None:
    theirs = random_model(**TINY, **END)
    theirs.save_pretrained(tmp_path / "one")
    theirs.save_pretrained(tmp_path / "several", max_shard_size="30KB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 1
    check_same(folder.read(tmp_path / "several"), folder.read(tmp_path / "one"))


def test_other_spellings_of_the_same_weights(tmp_path: Path) -> None:
    """OpenAI's files have names without the prefix, and masks; others store the head, which is tied."""
    random_model(**TINY, **END).save_pretrained(tmp_path)
    expected = folder.read(tmp_path)
    file = tmp_path / "model.safetensors"
    plain = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    masks = {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    save_file(plain | masks | {"lm_head.weight": plain["wte.weight"].clone()}, file)
    check_same(folder.read(tmp_path), expected)


def test_the_head_is_not_stored_twice() -> None:
    state = GPT(300, block_size=8, n_layer=1, n_head=1, n_embd=8).state_dict()
    tensors = export_weights(state)
    assert "lm_head.weight" not in tensors
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(tensors)

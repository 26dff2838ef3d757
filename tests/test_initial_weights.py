"""Weights from which training starts: the rows of a cut vocabulary, and the sizes of the model."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanosq import initial_weights
from nanosq.data import tokenizers
from nanosq.data.bpe import GPT2_SIZE, N_BYTES
from nanosq.data.tokenizers import GPT2, CutGPT2, Tokenizer
from nanosq.huggingface.other_tokenizer import HuggingFaceTokenizer
from nanosq.model import GPT
from nanosq.pretrained import Pretrained
from tests.weights import SIZES, random_weights

FULL = random_weights(GPT2(pad_to=GPT2_SIZE + 3))
MERGED = st.lists(st.integers(N_BYTES, GPT2_SIZE - 2), unique=True, max_size=30).map(sorted)


def logits(pretrained: Pretrained, weights: dict[str, torch.Tensor], vocab_size: int, ids: list[int]) -> torch.Tensor:
    block_size = len(weights["position_embedding.weight"])
    model = GPT(vocab_size, **{**pretrained.architecture, "block_size": block_size}).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        return model(torch.tensor([ids]))[0] @ model.head_weight.T


@settings(max_examples=20)
@given(MERGED, st.integers(0, 3), st.integers(1, 8), st.randoms())
def test_a_cut_model_has_the_logits_of_the_tokens_that_are_kept(
    merged: list[int], n_padding: int, block_size: int, random: Any
) -> None:
    """Also for a cut of a cut."""
    size = N_BYTES + len(merged) + 1
    cut = CutGPT2(merged, pad_to=size + n_padding)
    kept = [*range(N_BYTES), *merged, GPT2_SIZE - 1, *range(GPT2_SIZE, GPT2_SIZE + n_padding)]
    weights = initial_weights.fit(FULL, cut, block_size)
    ids = [random.randrange(len(kept)) for _ in range(block_size)]
    before = logits(FULL, dict(FULL.weights), FULL.tokenizer.vocab_size, [kept[i] for i in ids])
    after = logits(FULL, weights, cut.vocab_size, ids)
    torch.testing.assert_close(after, before[:, kept])
    smaller = CutGPT2(merged[::2])
    architecture = {**FULL.architecture, "block_size": block_size}
    of_cut = replace(FULL, architecture=architecture, weights=weights, tokenizer=cut)
    for name, weight in initial_weights.fit(of_cut, smaller, block_size).items():
        assert torch.equal(weight, initial_weights.fit(FULL, smaller, block_size)[name])


def test_an_equal_tokenizer_takes_all_rows() -> None:
    for tokenizer in (tokenizers.byte_level(), CutGPT2([300], pad_to=260)):
        weights = random_weights(tokenizer)
        fitted = initial_weights.fit(weights, tokenizers.load(tokenizer.state()), 8)
        assert all(torch.equal(fitted[name], weight) for name, weight in weights.weights.items())


@pytest.mark.parametrize(
    ("tokenizer", "trained", "message"),
    [
        (CutGPT2([262, 300]), CutGPT2([262]), "lacks 1 of the tokens of this one, such as ' l'"),
        (GPT2(), CutGPT2([262]), "lacks 49,999 of the tokens"),
        (GPT2(pad_to=50304), GPT2(), "pad_to=50304 adds 47 ids.* has 0 of them: set data.tokenizer.pad_to=null"),
        (CutGPT2([], pad_to=260), CutGPT2([], pad_to=258), "adds 3 ids.* has 1 of them: .*pad_to=258"),
        (tokenizers.byte_level(), GPT2(), r"another tokenizer \(GPT2\) than this run has \(ByteLevel\)"),
        (
            CutGPT2([]),
            tokenizers.byte_level(),
            r"another tokenizer \(ByteLevel\) than this run has \(CutGPT2\): set data.tokenizer as it was",
        ),
        (CutGPT2([]), HuggingFaceTokenizer("{}", end=0, pad_to=9), "only weights with GPT-2's tokens, or a part of"),
    ],
)
def test_rows_that_the_weights_do_not_have(tokenizer: Tokenizer, trained: Tokenizer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initial_weights.rows(tokenizer, trained, "weights")


@pytest.mark.parametrize("name", ["position_embedding.weight", "token_embedding.weight", "final_norm.weight"])
@pytest.mark.parametrize("n_rows", [0, 5])
def test_weights_of_another_model(name: str, n_rows: int) -> None:
    damaged = {key: weight for key, weight in FULL.weights.items() if key != name}
    if n_rows:
        damaged[name] = FULL.weights[name][:n_rows].repeat(2, *[1] * (FULL.weights[name].dim() - 1))
    model = GPT(FULL.tokenizer.vocab_size, **SIZES)
    with pytest.raises(ValueError, match=f"weights holds another model: it (has|lacks) the tensor {name}"):
        replace(FULL, weights=damaged).check(model)
    damaged[name] = FULL.weights[name].clone()
    damaged[name][-1] = float("nan" if n_rows else "inf")
    with pytest.raises(ValueError, match=f"weights is broken: numbers of the tensor {name} are not finite"):
        replace(FULL, weights=damaged).build()
    initial_weights.check_weights(FULL, GPT(FULL.tokenizer.vocab_size, **SIZES | {"block_size": 4}), CutGPT2([]))
    with pytest.raises(ValueError, match="another tokenizer"):
        initial_weights.check_weights(FULL, model, tokenizers.byte_level())


def test_sizes_that_are_not_set_are_those_of_the_weights() -> None:
    left = {**dict.fromkeys(SIZES), "dropout": 0.1, "embedding_std": 0.1}
    assert initial_weights.missing_sizes(left, SIZES) == SIZES
    assert initial_weights.missing_sizes({**left, "block_size": 4}, SIZES).keys() == SIZES.keys() - {"block_size"}
    assert initial_weights.missing_sizes({"n_layer": 1}, SIZES).keys() == SIZES.keys() - {"n_layer"}
    unnamed = {key: SIZES[key] for key in ("n_layer", "n_head", "n_embd", "block_size")}  # others have their defaults
    assert initial_weights.missing_sizes({**SIZES, "bias": None}, unnamed) == {"bias": False}
    assert initial_weights.missing_sizes(unnamed, unnamed) == {}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n_layer", 2, "model.n_layer is 2, .* init_from=x have 1: set model.n_layer=1, or leave it"),
        ("bias", False, "model.bias is false, .* have true: set model.bias=true"),
        ("activation", "gelu", "model.activation is gelu, .* have gelu_tanh"),
        ("block_size", 9, "model.block_size is 9, .* have 8: set model.block_size=8"),
        ("block_size", "many", "model.block_size is many"),
    ],
)
def test_sizes_that_contradict(key: str, value: object, message: str) -> None:
    initial_weights.check_sizes({**SIZES, "block_size": 7, "dropout": 0.5}, SIZES, "init_from=x")
    with pytest.raises(ValueError, match=message):
        initial_weights.check_sizes({**SIZES, key: value}, SIZES, "init_from=x")

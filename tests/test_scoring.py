"""The mean nll of a text."""

import math

import pytest
import torch

from nanosq.data.tokenizers import ByteLevel
from nanosq.model import GPT
from nanosq.scoring import mean_nll

TOKENIZER = ByteLevel()


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(TOKENIZER.vocab_size, block_size=8, n_layer=2, n_head=2, n_embd=8, embedding_std=0.5).eval()


def nll(model: GPT, ids: list[int], begin: int, end: int, predicted: int) -> float:
    """Return the nll of the token `predicted` of a sequence, read in the window [begin, end)."""
    with torch.no_grad():
        hidden_TD = model(torch.tensor([ids[begin:end]]))[0]
        logits_V = hidden_TD[predicted - 1 - begin] @ model.head_weight.T
        return -float(logits_V.log_softmax(dim=0)[ids[predicted]])


def test_a_text_that_fits_into_a_window(model: GPT) -> None:
    ids = [TOKENIZER.end_of_text, *b"story"]
    expected = sum(nll(model, ids, 0, 5, predicted) for predicted in range(1, 6)) / 5
    assert mean_nll(model, TOKENIZER, "story") == pytest.approx(expected, rel=1e-5)


def test_a_longer_text_is_read_in_windows_that_overlap_by_half(model: GPT) -> None:
    text = "a longer story than that"[:18]
    ids = [TOKENIZER.end_of_text, *text.encode()]
    windows = {0: range(1, 9), 4: range(9, 13), 8: range(13, 17), 10: range(17, 19)}  # the last one ends with the text
    expected = sum(nll(model, ids, begin, begin + 8, at) for begin, scored in windows.items() for at in scored) / 18
    assert mean_nll(model, TOKENIZER, text) == pytest.approx(expected, rel=1e-5)


def test_a_model_without_knowledge() -> None:
    uniform = GPT(TOKENIZER.vocab_size, block_size=8, n_layer=1, n_head=1, n_embd=4).eval()
    with torch.no_grad():
        uniform.token_embedding.weight.zero_()
    assert mean_nll(uniform, TOKENIZER, "any text") == pytest.approx(math.log(TOKENIZER.vocab_size))


def test_an_empty_text_has_no_score(model: GPT) -> None:
    with pytest.raises(ValueError, match="no tokens"):
        mean_nll(model, TOKENIZER, "")

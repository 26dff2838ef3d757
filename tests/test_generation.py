from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from nanosq.data import tokenizers
from nanosq.generation import generate

TOKENIZER = tokenizers.byte_level()


class Speller(nn.Module):
    """A model that spells a word over and over, whatever came before; it keeps what it was shown."""

    def __init__(self, word: str, block_size: int = 8) -> None:
        super().__init__()
        self.block_size = block_size
        self.head_weight = torch.eye(TOKENIZER.vocab_size)
        ids = [*word.encode(), TOKENIZER.end_of_text]
        self.next = {TOKENIZER.end_of_text: ids[0]} | dict(pairwise(ids))
        self.seen: list[list[int]] = []

    def forward(self, tokens_BT: Tensor) -> Tensor:
        self.seen += tokens_BT.tolist()
        following = torch.tensor([[self.next.get(token, 0) for token in row] for row in tokens_BT.tolist()])
        return 100 * nn.functional.one_hot(following, TOKENIZER.vocab_size).float()


def test_a_text_ends_at_its_end_of_text() -> None:
    assert generate(Speller("story"), TOKENIZER, count=2, length=50) == ["story", "story"]


def test_a_text_begins_with_the_prompt_and_stops_at_the_length() -> None:
    assert generate(Speller("story"), TOKENIZER, prompt="st", length=2, temperature=0) == ["stor"]


def test_the_model_sees_no_more_than_its_block() -> None:
    model = Speller("abcdefghijkl", block_size=4)
    generate(model, TOKENIZER, length=10)
    assert max(map(len, model.seen)) == 4
    assert model.seen[0] == [TOKENIZER.end_of_text]


def test_no_texts() -> None:
    assert generate(Speller("story"), TOKENIZER, count=0) == []


@pytest.mark.parametrize("setting", ["count", "length", "temperature"])
def test_refuses_negative_numbers(setting: str) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        generate(Speller("story"), TOKENIZER, **{setting: -1})


def test_the_seed_decides() -> None:
    class Even(Speller):
        def forward(self, tokens_BT: Tensor) -> Tensor:
            return torch.zeros(*tokens_BT.shape, TOKENIZER.vocab_size)

    texts = [generate(Even("x"), TOKENIZER, length=20, seed=seed) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]

"""Texts: their end, windows and randomness, with and without a cache. tests/test_sampling.py has the distribution."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from analysis.benchmarks.generation import transformers_model
from nanosq.data import tokenizers
from nanosq.generation import generate, new_ids, prepare, stream
from nanosq.hardware import Hardware
from nanosq.model import GPT
from nanosq.settings import SampleSettings

TOKENIZER = tokenizers.byte_level()
END = TOKENIZER.end_of_text


class Speller(nn.Module):
    """A model without a cache that spells a word over and over; it keeps what it was shown."""

    def __init__(self, word: str, block_size: int = 8) -> None:
        super().__init__()
        self.block_size = block_size
        self.head_weight = torch.eye(TOKENIZER.vocab_size)
        ids = [*word.encode(), END]
        self.next = {END: ids[0]} | dict(pairwise(ids))
        self.seen: list[list[int]] = []

    def forward(self, tokens_BT: Tensor) -> Tensor:
        self.seen += tokens_BT.tolist()
        following = torch.tensor([[self.next.get(token, 0) for token in row] for row in tokens_BT.tolist()])
        return 100 * nn.functional.one_hot(following, TOKENIZER.vocab_size).float()


class WithoutCache(nn.Module):
    """The same model without its cache."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model, self.block_size, self.head_weight = model, model.block_size, model.head_weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.model(tokens_BT)


def random_model(vocab_size: int = TOKENIZER.vocab_size, **sizes: Any) -> GPT:
    """Return a model whose logits are far apart, and depend on all tokens."""
    torch.manual_seed(0)
    model = GPT(vocab_size, **{"block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "bias": True, **sizes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    nn.init.normal_(model.position_embedding.weight, std=2.0)  # so that greedy texts do not repeat themselves
    return model


def test_a_text_ends_at_its_end_of_text() -> None:
    assert generate(Speller("story"), TOKENIZER, count=2, length=50) == ["story", "story"]


def test_a_text_that_has_ended_waits_for_the_others() -> None:
    model = random_model()
    longer, ended = [*new_ids(model, TOKENIZER, SampleSettings(40, 60, 1.0, "", None, None))], False
    for row in zip(*longer, strict=True):
        after = row[row.index(END) :] if END in row else ()
        assert {*after} <= {END}
        ended |= len(after) > 1
    assert ended


def test_a_text_begins_with_the_prompt_and_stops_at_the_length() -> None:
    assert generate(Speller("story"), TOKENIZER, prompt="st", length=2, temperature=0) == ["stor"]
    assert generate(Speller("story"), TOKENIZER, prompt="st", length=0) == ["st"]


@pytest.mark.parametrize(("block_size", "lengths"), [(4, "123434343"), (5, "123453453"), (1, "111111111")])
def test_a_full_window_begins_again_with_its_last_half(block_size: int, lengths: str) -> None:
    model = Speller("abcdefghijkl", block_size=block_size)
    generate(model, TOKENIZER, length=9)
    assert "".join(str(len(window)) for window in model.seen) == lengths
    text = [END, *b"abcdefghi"]
    assert [window[-1] for window in model.seen] == text[:9]


@pytest.mark.parametrize(("length", "seen"), [(7, 8), (8, 5), (11, 8), (12, 5), (400, 5)])
def test_of_a_long_prompt_the_model_sees_the_end_as_if_it_had_written_it(length: int, seen: int) -> None:
    """The first window of a prompt is the last window of the text: a window of 8 begins at a multiple of 4."""
    model = Speller("abc")
    prompt = ("abc" * 200)[:length]
    generate(model, TOKENIZER, prompt=prompt, length=1)
    assert model.seen == [[END, *prompt.encode()][-seen:]]


def test_the_largest_length_needs_no_memory() -> None:
    assert generate(Speller("story"), TOKENIZER, length=10**12) == ["story"]


def test_no_texts() -> None:
    assert generate(Speller("story"), TOKENIZER, count=0) == []


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        *[(name, -1, "must be at least 0") for name in ("count", "length", "temperature")],
        ("seed", -1, "seed must not be negative"),
        *[("temperature", value, "must be finite") for value in (float("nan"), float("inf"))],
        *[("top_k", value, "top_k=.* must be at least 1") for value in (0, -1)],
        *[("top_p", value, "top_p=.* must be (above 0|at most 1|finite)") for value in (0.0, 1.1, float("nan"))],
    ],
)
def test_refuses_numbers_out_of_range(setting: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(Speller("story"), TOKENIZER, **{setting: value})


def test_the_seed_decides() -> None:
    texts = [generate(random_model(), TOKENIZER, length=20, seed=seed) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_a_text_does_not_depend_on_the_number_of_texts() -> None:
    model = random_model().double()
    many = generate(model, TOKENIZER, count=5, length=40)
    assert len({*many}) == 5
    assert [generate(model, TOKENIZER, count=count, length=40) for count in (1, 3)] == [many[:1], many[:3]]


def test_padding_is_never_drawn() -> None:
    padded = tokenizers.byte_level(pad_to=300)
    model = random_model(padded.vocab_size)
    with torch.no_grad():
        model.head_weight[END + 1 :] *= 100
    for temperature in (0, 1):
        ids = new_ids(model, padded, SampleSettings(20, 20, temperature, "", None, None))
        assert max(map(max, ids)) <= END


def test_a_character_of_several_tokens_comes_as_a_whole() -> None:
    pieces = list(stream(Speller("a\u732b\u00e9"), TOKENIZER, SampleSettings(1, 9, 0, "\u00fc", None, None)))
    assert pieces[0] == ["\u00fc"]
    model = Speller("a\u732b\u00e9")
    pieces = list(stream(model, TOKENIZER, SampleSettings(1, 9, 0, "", None, None)))
    assert [piece for (piece,) in pieces] == ["", "a", "", "", "\u732b", "", "\u00e9", "", ""]
    cut_short = list(stream(model, TOKENIZER, SampleSettings(1, 3, 0, "", None, None)))
    assert "".join(piece for (piece,) in cut_short) == TOKENIZER.decode([*"a\u732b".encode()][:3])


def test_a_broken_model_is_refused() -> None:
    model = random_model()
    with torch.no_grad():
        model.head_weight[3] = float("nan")
    for temperature in (0, 1):
        with pytest.raises(ValueError, match="not finite numbers"):
            generate(model, TOKENIZER, temperature=temperature)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model = random_model(dropout=0.5).train(training)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert generate(model, TOKENIZER, length=3) == generate(model, TOKENIZER, length=3)
    assert model.training is training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    model(torch.tensor([[1, 2]])).sum().backward()  # it can be trained


@settings(max_examples=25)
@given(
    sizes=st.fixed_dictionaries(
        {
            "block_size": st.integers(1, 12),
            "n_layer": st.integers(1, 3),
            "n_head": st.sampled_from([1, 2, 4]),
            "bias": st.booleans(),
            "activation": st.sampled_from(["gelu", "gelu_tanh"]),
        }
    ),
    count=st.integers(1, 4),
    length=st.integers(1, 30),
    temperature=st.sampled_from([0.0, 0.8, 1.5]),
    prompt=st.text(max_size=12),
    top_k=st.none() | st.integers(1, 20),
    top_p=st.none() | st.floats(0.1, 1.0),
)
def test_the_cache_does_not_change_the_texts(sizes: dict[str, Any], **options: Any) -> None:
    model = random_model(**sizes).double()
    cached, plain = (generate(each, TOKENIZER, **options) for each in (model, WithoutCache(model)))
    assert cached == plain


def test_a_recurrent_model_without_cache_writes() -> None:
    class GRU(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block_size = 8
            self.embedding = nn.Embedding(TOKENIZER.vocab_size, 8)
            self.layers = nn.GRU(8, 8, batch_first=True)
            self.head_weight = self.embedding.weight

        def forward(self, tokens_BT: Tensor) -> Tensor:
            return self.layers(self.embedding(tokens_BT))[0]

    torch.manual_seed(0)
    texts = generate(GRU(), TOKENIZER, count=3, length=30, top_k=50)
    assert len({*texts}) == 3


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("prompt", ["", "Once upon a time, a clever boy"])
def test_greedy_texts_are_those_of_transformers(count: int, prompt: str) -> None:
    pytest.importorskip("transformers")
    model = random_model(block_size=256, n_embd=32, n_head=4)
    expected = transformers_model(model)
    ids = [*new_ids(model, TOKENIZER, SampleSettings(count, 200, 0, prompt, None, None))]
    assert len(ids) == 200
    start_BT = torch.tensor([[END, *prompt.encode()]]).repeat(count, 1)
    mask_BT = torch.ones_like(start_BT)
    theirs = expected.generate(
        start_BT, attention_mask=mask_BT, max_new_tokens=200, do_sample=False, eos_token_id=END, pad_token_id=END
    )
    assert [*map(list, zip(*ids, strict=True))] == theirs[:, start_BT.shape[1] :].tolist()
    assert len({*theirs[0].tolist()}) > 8


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.3)])
@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_prepared_weights_are_the_same(precision: str, tolerance: float, n_rows: int) -> None:
    model = random_model()
    tokens_BT = torch.randint(TOKENIZER.vocab_size, (n_rows, 9))
    expected = model(tokens_BT).detach()
    prepared = prepare(model, Hardware(torch.device("cpu"), precision))
    with torch.inference_mode():
        actual = prepared(tokens_BT).float()
    assert (actual - expected).abs().mean() < tolerance
    assert not any(parameter.requires_grad for parameter in prepared.parameters())

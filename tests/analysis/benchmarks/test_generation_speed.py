"""The comparison of generation with other programs."""

import pytest
import torch

from analysis.benchmarks.generation import TOKENIZER, MeasuredWriter, comparison, writers
from nanosq.model import GPT


def test_every_contender_writes_the_same_number_of_tokens() -> None:
    pytest.importorskip("transformers")
    model = GPT(TOKENIZER.vocab_size, block_size=16, n_layer=1, n_head=2, n_embd=8, bias=True)
    cases = writers(model, 5, [1, 2], ["fp32", "bf16"], "cpu", None)
    assert [*cases] == [
        MeasuredWriter(batch, precision, project)
        for precision in ("fp32", "bf16")
        for batch in (1, 2)
        for project in ("nanosq", "transformers")
    ]
    for case, write in cases.items():
        texts = write()
        if case.project == "transformers":
            assert isinstance(texts, torch.Tensor)
            assert texts.shape == (case.batch, 1 + 5)


def test_contenders_are_compared_with_nanosq_of_the_same_batch_and_precision() -> None:
    times = {
        MeasuredWriter(1, "fp32", "nanosq"): 2.0,
        MeasuredWriter(8, "fp32", "nanosq"): 4.0,
        MeasuredWriter(1, "fp32", "nanoGPT"): 12.0,
        MeasuredWriter(8, "fp32", "transformers"): 5.0,
    }
    table = comparison(times, tokens=100)
    assert table["times nanosq"].to_dict() == {
        (1, "fp32", "nanoGPT"): 6.0,
        (1, "fp32", "nanosq"): 1.0,
        (8, "fp32", "nanosq"): 1.0,
        (8, "fp32", "transformers"): 1.25,
    }
    assert table["ms/token"][1, "fp32", "nanosq"] == 20
    assert table["tokens/s"][8, "fp32", "nanosq"] == 200

import csv
import io

import numpy as np
import torch

from nanosq import artifacts
from nanosq.data.corpus import Split
from nanosq.data.tokenizers import byte_level

TOKENIZER = byte_level()
TEXTS = [f'story {i}, "quoted"\nand é' for i in range(29)] + ["long " * 1000]


def split() -> Split:
    ids = [TOKENIZER.encode([text])[0] for text in TEXTS]
    end = np.array([TOKENIZER.end_of_text])
    tokens = np.concatenate([end, *(part for each in ids for part in (each, end))])
    starts = np.cumsum([0, *(len(each) + 1 for each in ids)])
    document_bytes = np.array([len(text.encode()) for text in TEXTS])
    return Split(tokens, starts, document_bytes, int(document_bytes.sum()), float("nan"))


def test_each_story_has_a_line_and_the_extremes_their_text() -> None:
    nll = torch.rand(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 100
    nll[29] = 1e6  # the hardest
    rows = list(csv.DictReader(io.StringIO(artifacts.stories_csv(split(), TOKENIZER, nll))))
    assert [int(row["story"]) for row in rows] == list(range(30))
    assert [float(row["nll"]) for row in rows] == nll.tolist()  # to the last bit
    assert [int(row["tokens"]) for row in rows] == [len(text.encode()) + 1 for text in TEXTS]
    assert [int(row["bytes"]) for row in rows] == [len(text.encode()) for text in TEXTS]
    by_difficulty = sorted(range(30), key=lambda i: nll[i].item() / (len(TEXTS[i].encode()) + 1))
    shown = {int(row["story"]) for row in rows if row["text"]}
    assert shown == {*by_difficulty[:10], *by_difficulty[-10:]}
    assert all(rows[i]["text"] == TEXTS[i][: artifacts.MAX_CHARACTERS] for i in shown)


def test_each_bin_has_a_line() -> None:
    bins = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.5, 0.0]], dtype=torch.float64)
    text = artifacts.calibration_csv(bins)
    assert text.splitlines() == ["tokens,correct,confidence", "3.0,2.0,1.5", "0.0,0.0,0.0"]

"""TinyStories: the Hugging Face hub and its cache, copies in a directory, and the report's split of the rows."""

import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from nanosq.data import sources
from tests.hub import answering, refused

NAME = "roneneldan/TinyStories"
REVISION = "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
STORIES = [f"Story {i} was about a fox." for i in range(50)]
NAMES = [f"train-0000{i}-of-00002-{i}d5a1467fff1081b.parquet" for i in range(2)] + [
    "validation-00000-of-00001-869c898b519ad725.parquet"
]


def n_test_stories(revision: str = REVISION) -> int:
    return sum(1 for _ in sources.tinystories("test", revision=revision))


def test_a_hub_that_does_not_answer_is_one_line_that_says_what_to_set(use_hub):
    with refused() as endpoint:
        use_hub(endpoint)
        with pytest.raises(ValueError, match=r"cache, and the hub failed \(.*data.source.path=DIR") as caught:
            n_test_stories()
    assert "\n" not in str(caught.value)


def parquet(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def repository() -> dict[str, bytes]:
    parts = (STORIES[:10], STORIES[10:25], STORIES[25:])
    data = {f"data/{name}": parquet(part) for name, part in zip(NAMES, parts, strict=True)}
    return data | {"TinyStories-train.txt": b"not to be downloaded" * 100}


def test_tinystories_is_downloaded_once_and_then_read_from_the_cache(use_hub, tmp_path, repository):
    with answering(NAME, REVISION, repository) as (endpoint, requests):
        use_hub(endpoint)
        assert n_test_stories() == 25
        assert sum(line.startswith("GET /datasets") for line in requests) == 3
        assert not any("TinyStories-train.txt" in line for line in requests)
        requests.clear()
        assert n_test_stories() == 25
        assert requests == []

    # If a file is missing, the rest is not taken for the whole data set.
    next(tmp_path.rglob(NAMES[1])).resolve().unlink()
    with refused() as endpoint:
        use_hub(endpoint)
        with pytest.raises(ValueError, match="the hub failed"):
            n_test_stories()
    with answering(NAME, REVISION, repository) as (endpoint, _):
        use_hub(endpoint)
        assert n_test_stories() == 25


def test_a_revision_that_the_hub_does_not_have_is_an_error(use_hub):
    with answering(NAME, REVISION, {}) as (endpoint, _):
        use_hub(endpoint)
        with pytest.raises(ValueError, match=r"the hub failed \(.*404"):
            n_test_stories("0" * 40)


def test_the_report_held_out_the_rows_that_datasets_holds_out(tmp_path):
    """A row without text keeps its number, and is in no split."""
    texts = [f"story {i}" if i % 3 else None for i in range(5000)]
    pa.parquet.write_table(pa.table({"text": texts}), tmp_path / "train-00000-of-00001.parquet")
    halves = datasets.Dataset(pa.table({"text": texts})).train_test_split(test_size=0.0005, seed=2357, shuffle=True)
    for split, half in (("val", "test"), ("train", "train")):
        stories = [document.text for document in sources.tinystories(split, path=str(tmp_path), splits="report")]
        assert sorted(stories) == sorted(filter(None, halves[half]["text"]))


def test_the_report_held_out_1060_rows_of_the_published_training_split():
    assert sources.report_rows(2_119_719).sum() == 1060


def test_the_rows_of_a_text_file_are_not_the_published_ones(tmp_path):
    for name in ("TinyStories-train.txt", "TinyStories-valid.txt"):
        (tmp_path / name).write_text("one<|endoftext|>two")
    with pytest.raises(ValueError, match=r"data.source.splits=report takes rows by their number: give the published"):
        list(sources.tinystories("val", path=str(tmp_path), splits="report"))


def texts(split: str, path: Path, **arguments) -> list[str]:
    return [document.text for document in sources.tinystories(split, path=str(path), **arguments)]


def test_tinystories_is_read_from_a_directory(tmp_path):
    stories = [f"Story {i} was about a fox." for i in range(400)]
    (tmp_path / "data").mkdir()
    for name, part in zip(NAMES, (stories[:150], stories[150:300], stories[300:]), strict=True):
        (tmp_path / "data" / name).write_bytes(parquet(part))
    (tmp_path / "TinyStoriesV2-GPT4-train.txt").write_text("the second version<|endoftext|>")
    (tmp_path / "TinyStoriesV2-GPT4-valid.txt").write_text("of the dataset<|endoftext|>")
    assert texts("test", tmp_path) == stories[300:]
    train, val = (texts(split, tmp_path, val_fraction=0.2) for split in ("train", "val"))
    assert sorted(train + val) == sorted(stories[:300])
    assert 30 < len(val) < 90

    shutil.rmtree(tmp_path / "data")
    assert texts("test", tmp_path) == ["of the dataset"]
    (tmp_path / "TinyStories-valid.txt").write_text("the first version<|endoftext|>")
    assert texts("test", tmp_path) == ["the first version"]


def test_a_directory_without_tinystories_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"data.source.path: there is no directory"):
        texts("train", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"data.source.path: no file in .* has 'train' in its name"):
        texts("train", tmp_path)

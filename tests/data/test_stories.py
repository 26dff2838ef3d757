"""The embedded stories: exact log-probabilities, random streams, and the quality of the shipped grammar."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from nanosq.data import stories as module
from nanosq.data.stories import Grammar, stories

SHIPPED = Path(module.__file__).with_name("stories.yaml")


@pytest.fixture(scope="module")
def shipped() -> Grammar:
    return Grammar.load(SHIPPED)


@pytest.fixture(scope="module")
def shipped_rules() -> dict:
    return yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))


def test_a_sampled_story_has_the_probability_of_its_text(shipped):
    for document in stories("val", n_val=400):
        assert shipped.log_probability(document.text) == pytest.approx(document.log_probability, rel=1e-9)


def test_a_text_outside_the_grammar_has_no_probability(shipped):
    text = next(stories("train")).text
    assert shipped.log_probability(text) > -math.inf
    for other in ("", text[:-1], text + " ", "X" + text, text.replace("e", "E", 1)):
        assert shipped.log_probability(other) == -math.inf


def test_stories_depend_on_seed_and_split_only():
    def texts(split: str, n: int, seed: int = 0) -> list[str]:
        return [document.text for document in stories(split, n_train=n, n_val=n, n_test=n, seed=seed)]

    assert texts("train", 30) == texts("train", 30)
    assert texts("train", 50)[:30] == texts("train", 30)
    streams = [texts("train", 30), texts("val", 30), texts("test", 30), texts("train", 30, seed=1)]
    assert len({text for stream in streams for text in stream}) == 4 * 30


def test_sizes_of_the_splits():
    sizes = {"n_train": 7, "n_val": 5, "n_test": 3}
    assert [len(list(stories(split, **sizes))) for split in ("train", "val", "test")] == [7, 5, 3]
    with pytest.raises(ValueError, match="split must be one of train, val, test, not 'dev'"):
        next(stories("dev"))
    with pytest.raises(ValueError, match=r"data.source.grammar: cannot read nowhere.yaml: No such file"):
        next(stories("test", grammar="nowhere.yaml"))


def test_every_alternative_is_common_in_the_default_corpus(monkeypatch):
    n_picked: Counter[int] = Counter()
    grammars = []
    pick, load = module.Distribution.pick, Grammar.load

    def counting(table, rng):
        alternative, log_probability = pick(table, rng)
        n_picked[id(alternative)] += 1
        return alternative, log_probability

    monkeypatch.setattr(module.Distribution, "pick", counting)
    monkeypatch.setattr(Grammar, "load", lambda path: grammars.append(load(path)) or grammars[0])
    assert len(list(stories("train"))) == 12_000
    alternatives = list(grammars[0].alternatives())
    assert len(alternatives) > 1_000
    assert {id(alternative) for _, alternative in alternatives} >= set(n_picked)
    rare = [(rule, alternative.forms) for rule, alternative in alternatives if n_picked[id(alternative)] < 30]
    assert not rare


def test_shipped_stories_are_well_formed():
    for document in stories("train", n_train=2_000):
        text = document.text
        assert not re.search(r"[\[\]{}|]|  | \n|\n |\n{3}| [.,!?]|[.,!?]{2}", text), text
        assert not re.search(r"\b[Aa] [aeiou]", text), text
        assert all(paragraph.count('"') % 2 == 0 for paragraph in text.split("\n\n")), text
        assert re.search(r'[.!?]"?$', text), text
        assert all(paragraph[0].isupper() or paragraph[0] == '"' for paragraph in text.split("\n\n")), text
        assert not re.search(r'(^|[.!?] )"?[a-z]', text), text


def test_the_plots_are_all_different(shipped_rules):
    assert len(shipped_rules["plot"]) >= 12
    sentences = Counter(
        sentence
        for entry in shipped_rules["plot"]
        for alternative in shipped_rules[entry.strip("{}")]
        for sentence in re.split(r"(?<=[.!?]) ", " ".join(alternative.split()))
        if len(sentence.split()) > 7
    )
    assert len(sentences) > 100
    assert max(sentences.values()) == 1

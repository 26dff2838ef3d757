"""The grammar: exact probabilities, compared with an enumeration of all derivations, and errors."""

import itertools
import math
import random
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from nanosq.data import stories
from nanosq.data.stories import Grammar

SHIPPED = Path(stories.__file__).with_name("stories.yaml")

SMALL = {
    "story": [
        {"text": "{who:names} met {pal:names-who}.[| {Who} ran, {who.they} did.] {feel/who}", "weight": 3},
        "{thing}[{who:names}|{pal:names}]{thing}",
    ],
    "names": [
        {"text": "Ann", "they": "she"},
        {"text": "Bob", "they": "he", "weight": 2},
        {"text": "Cy", "they": "he", "weight": 0.5},
    ],
    "feel/Ann": ["Good {pal}!", "Bad {pal}!"],
    "feel/Bob": ["{who.They} [sang|slept [long|well]]."],
    "feel/Cy": ["{thing}"],
    # Ambiguous: "aa" has three derivations, and the empty text has one.
    "thing": ["[a|]a", "[|a|aa]", {"text": "b", "weight": 2}],
}


def entries(rules: dict, rule: str) -> list[dict]:
    return [entry if isinstance(entry, dict) else {"text": entry} for entry in rules[rule]]


def derivations(rules: dict, rest: str, bound: dict[str, dict]) -> Iterator[tuple[str, float]]:
    """Yield every derivation of a template as (text, probability), by rewriting the leftmost bracket or brace."""
    start = re.search(r"[\[{]", rest)
    if start is None:
        yield rest, 1.0
        return
    before, rest = rest[: start.start()], rest[start.start() :]
    rewritten = []  # (replacement, its probability, bindings)
    if rest[0] == "[":
        parts, depth, end = [""], 0, 0
        for end, char in enumerate(rest):
            depth += {"[": 1, "]": -1}.get(char, 0)
            if depth == 0:
                break
            if char == "|" and depth == 1:
                parts.append("")
            elif end > 0:
                parts[-1] += char
        rewritten = [(part, 1 / len(parts), bound) for part in parts]
    else:
        end = rest.index("}")
        token = rest[1:end]
        if token in rules or "/" in token:
            rule = token if token in rules else f"{token.split('/')[0]}/{bound[token.split('/')[1]]['text']}"
            choices = entries(rules, rule)
            total = sum(entry.get("weight", 1) for entry in choices)
            rewritten = [(entry["text"], entry.get("weight", 1) / total, bound) for entry in choices]
        elif ":" in token:
            variable, drawn = token.split(":")
            rule, *others = drawn.split("-")
            taken = [bound[other]["text"] for other in others]
            choices = [entry for entry in entries(rules, rule) if entry["text"] not in taken]
            total = sum(entry.get("weight", 1) for entry in choices)
            rewritten = [
                (entry["text"], entry.get("weight", 1) / total, bound | {variable: entry}) for entry in choices
            ]
        else:
            variable, _, attribute = token.partition(".")
            value = bound[variable.lower()][(attribute or "text").lower()]
            capital = (attribute or variable)[0].isupper()
            rewritten = [(value[0].upper() + value[1:] if capital else value, 1.0, bound)]
    for replacement, probability, bindings in rewritten:
        for text, following in derivations(rules, replacement + rest[end + 1 :], bindings):
            yield before + text, probability * following


def distribution(rules: dict) -> dict[str, float]:
    """Return the probability of each text of a grammar."""
    texts: dict[str, float] = defaultdict(float)
    for text, probability in derivations(rules, "{story}", {}):
        texts[text] += probability
    return texts


def test_a_small_grammar_agrees_with_the_enumeration_of_its_derivations():
    texts, grammar = distribution(SMALL), Grammar(SMALL)
    assert len(list(derivations(SMALL, "{story}", {}))) > len(texts) > 50, "the grammar is meant to be ambiguous"
    assert math.fsum(texts.values()) == pytest.approx(1, rel=1e-12)
    assert math.fsum(math.exp(grammar.log_probability(text)) for text in texts) == pytest.approx(1, rel=1e-9)
    for text, probability in texts.items():
        assert grammar.log_probability(text) == pytest.approx(math.log(probability), rel=1e-9), text


def test_excluding_a_value_renormalizes_the_others():
    grammar = Grammar({"story": ["{a:names} {b:names-a}"], "names": SMALL["names"]})
    assert grammar.log_probability("Ann Bob") == pytest.approx(math.log(1 / 3.5 * 2 / 2.5))
    assert grammar.log_probability("Ann Ann") == -math.inf


def test_samples_follow_the_distribution_and_have_the_probability_of_their_choices():
    texts, grammar, rng = distribution(SMALL), Grammar(SMALL), random.Random(1)
    n = 20_000
    counts = Counter()
    for document in itertools.islice(iter(lambda: grammar.sample(rng), None), n):
        counts[document.text] += 1
        assert document.log_probability <= grammar.log_probability(document.text) + 1e-9
    assert set(counts) <= set(texts)
    for text, probability in texts.items():
        error = math.sqrt(n * probability * (1 - probability))
        assert abs(counts[text] - n * probability) < 5 * error + 1, text


def test_the_mean_of_minus_log_p_is_the_entropy():
    texts, grammar, rng = distribution(SMALL), Grammar(SMALL), random.Random(2)
    entropy = -math.fsum(p * math.log(p) for p in texts.values())
    surprisals = [-grammar.log_probability(grammar.sample(rng).text) for _ in range(20_000)]
    error = statistics.stdev(surprisals) / math.sqrt(len(surprisals))
    assert error < 0.01 * entropy
    assert abs(statistics.mean(surprisals) - entropy) < 4 * error


def test_part_of_the_shipped_grammar_sums_to_one():
    shipped_rules = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    few = {rule: shipped_rules[rule][:2] for rule in ("girls", "boys", "traits", "homes")}
    rules = shipped_rules | few | {"story": ["{opening} {ending}"]}
    texts, grammar = distribution({rule: flat(alternatives) for rule, alternatives in rules.items()}), Grammar(rules)
    assert len(texts) > 3_000
    assert math.fsum(math.exp(grammar.log_probability(text)) for text in texts) == pytest.approx(1, rel=1e-9)
    sampled = [grammar.sample(random.Random(seed)) for seed in range(200)]
    for document in sampled:
        assert document.log_probability == pytest.approx(math.log(texts[document.text]), rel=1e-9)


def flat(alternatives: list) -> list:
    """Return alternatives with their text on one line. They have no paragraphs, and no line breaks next to brackets."""
    return [
        entry | {"text": " ".join(entry["text"].split())} if isinstance(entry, dict) else " ".join(entry.split())
        for entry in alternatives
    ]


def test_line_breaks_in_a_template():
    grammar = Grammar({"story": ["One\n  two [\n  a\n  |b\n ] c\n\n  New.\n"]})
    assert grammar.log_probability("One two a c\n\nNew.") == pytest.approx(math.log(1 / 2))
    assert grammar.log_probability("One two b c\n\nNew.") == pytest.approx(math.log(1 / 2))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"plot": ["a"]}, "rule 'story': it is missing"),
        ({"story": ["{ending}"]}, "rule 'story': {ending}: 'ending' is no rule, and no variable"),
        ({"story": ["{a:names}"]}, "rule 'story': {a:names} draws from a rule 'names', which does not exist"),
        ({"story": ["{a:n} {b:n-c}"], "n": ["x", "y"]}, "rule 'story': {b:n-c}: 'c' is no rule, and no variable"),
        ({"story": ["{end}"], "end": ["{a}"]}, "rule 'end': {a}: 'a' is no rule"),
        (
            {"story": ["[{a:n}|] {a}"], "n": ["x"]},
            "rule 'story': {a}: 'a' is no rule, and no variable that always has a value",
        ),
        ({"story": ["{a:n} {b:n-a}"], "n": ["x"]}, "rule 'story': {b:n-a}: no value may be left to draw; add to 'n'"),
        ({"story": ["{a:n}"], "n": ["x", "{m}"], "m": ["y"]}, "rule 'story': {a:n}: a rule to draw from must not have"),
        ({"story": ["{a:n} {a.they}"], "n": ["x"]}, "rule 'story': {a.they}: the value 'x' lacks this attribute"),
        (
            {"story": ["{a:n} {m/a}"], "n": ["x", "y"], "m/x": ["z"]},
            "rule 'story': {m/a}: a rule is missing for the value",
        ),
        ({"story": ["{n:n}"], "n": ["x"]}, "rule 'story': {n:n}: 'n' is the name of a rule"),
        ({"story": ["{a}"], "a": ["[{b}|]"], "b": ["{a}"]}, "rule 'a': it refers to itself"),
        ({"story": ["a {b"]}, "rule 'story': a brace is not opened or not closed in 'a {b'"),
        ({"story": ["a {b c}"]}, "rule 'story': {b c} is none of {rule}"),
        ({"story": ["a [b"]}, "rule 'story': a bracket is not closed in 'a [b'"),
        ({"story": ["a] b"]}, "rule 'story': ']' is outside of brackets in 'a] b'"),
        ({"story": ["a|b"]}, "rule 'story': '|' is outside of brackets in 'a|b'"),
        ({"story": ["x"], "end": "x"}, "rule 'end': it must be a list of alternatives"),
        ({"story": [{"text": "x", "weight": 0}]}, "rule 'story': weight 0 must be a positive number"),
        ({"story": [{"text": "x", "weight": "many"}]}, "rule 'story': weight 'many' must be a positive number"),
        ({"story": [{"they": "x"}]}, "rule 'story': alternative {'they': 'x'} needs a key 'text'"),
        ({"story": [True]}, "rule 'story': alternative True has a name or value that is not text"),
        (["story"], "a grammar must map the names of rules to lists of alternatives"),
        ("story: [", "not YAML"),
    ],
)
def test_errors_name_the_rule_in_one_line(tmp_path, rules, message):
    path = tmp_path / "grammar.yaml"
    path.write_text(rules if isinstance(rules, str) else yaml.safe_dump(rules), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Grammar.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)

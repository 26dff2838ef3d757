"""The embedded corpus: short children's stories, sampled from a grammar with known probabilities.

The probability of every story is exact. The notation of the grammar is explained at the top of stories.yaml.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from nanosq.data.grammar import (
    NOTHING,
    Alternative,
    Choice,
    Dispatch,
    Distribution,
    Draw,
    FixedText,
    Node,
    Variable,
    log_add,
    refuse,
)
from nanosq.data.sources import Document
from nanosq.ranges import Count

START = "story"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C, where PyYAML has it, is six times as fast
_TOKEN = re.compile(r"\{[^{}]*\}|[\[\]|]|[^{}\[\]|]+")
_REFERENCE = re.compile(r"\{([A-Za-z_]+)(?:\.([A-Za-z_]+)|/([a-z_]+)|:([a-z_]+)((?:-[a-z_]+)*))?\}")


def stories(
    split: str,
    *,
    n_train: Count = 12_000,
    n_val: Count = 250,
    n_test: Count = 250,
    seed: int = 0,
    grammar: str = str(Path(__file__).with_name("stories.yaml")),
) -> Iterator[Document]:
    """Yield independent stories with their log-probabilities. The random numbers depend on the seed and the split.

    Args:
        split: "train", "val" or "test".
        n_train: Number of stories in train.
        n_val: Number of stories in val.
        n_test: Number of stories in test.
        seed: Seed of the random numbers.
        grammar: A file in the notation of stories.yaml.
    """
    sizes = {"train": n_train, "val": n_val, "test": n_test}
    if split not in sizes:
        raise ValueError(f"split must be one of {', '.join(sizes)}, not {split!r}")
    compiled = Grammar.load(grammar)
    rng = random.Random(f"{seed}/{split}")
    for _ in range(sizes[split]):
        yield compiled.sample(rng)


class Grammar:
    """A probabilistic grammar without recursion, whose variables keep their values for a whole text."""

    def __init__(self, rules: Mapping[str, object]) -> None:
        """Compile the rules of a grammar file. Raise ValueError, which names the rule and its problem in one line."""
        self._slots: dict[str, int] = {}  # index of a variable's value in an environment
        self._choices = {rule: Choice(rule) for rule in rules}
        if START not in rules:
            refuse(START, "it is missing; every text begins with this rule")
        for rule, entries in rules.items():
            self._choices[rule].distribution = Distribution(self._alternatives(rule, entries))
        self._choices[START].check({})

    @classmethod
    def load(cls, path: str | Path) -> Grammar:
        """Return the grammar of a YAML file. Raise ValueError in one line if the file is no grammar."""
        path = Path(path).expanduser()
        try:
            rules = yaml.load(path.read_text(encoding="utf-8"), LOADER)
            if not (isinstance(rules, dict) and all(isinstance(rule, str) for rule in rules)):
                raise ValueError("a grammar must map the names of rules to lists of alternatives")
            return cls(rules)
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        except OSError as error:
            raise ValueError(f"data.source.grammar: cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def sample(self, rng: random.Random) -> Document:
        """Return one text with the log-probability, in nats, of the choices that were drawn."""
        written: list[str] = []
        log_probability = self._choices[START].sample(rng, [NOTHING] * len(self._slots), written)
        return Document("".join(written), log_probability)

    def log_probability(self, text: str) -> float:
        """Return the log-probability of a text in nats, over all its derivations; -inf if there is none.

        A dynamic program: a state is a position in the text with values of the variables. Its probability is the sum
        over all derivations that lead from the beginning of the text to the state.
        """
        start = {(0, (NOTHING,) * len(self._slots)): 0.0}
        total = -math.inf
        for (position, _), log_probability in self._choices[START].advance(text, start).items():
            if position == len(text):
                total = log_add(total, log_probability)
        return total

    def alternatives(self) -> Iterator[tuple[str, Alternative]]:
        """Yield every alternative with the name of its rule, including those in brackets inside templates."""
        waiting: list[Choice] = list(self._choices.values())
        while waiting:
            choice = waiting.pop()
            for alternative in choice.distribution.alternatives:
                yield choice.rule, alternative
                waiting += [node for node in alternative.nodes if isinstance(node, Choice) and node.inline]

    def _alternatives(self, rule: str, entries: object) -> Iterator[Alternative]:
        if not isinstance(entries, list) or not entries:
            refuse(rule, "it must be a list of alternatives")
        for entry in entries:
            fields = dict(entry) if isinstance(entry, dict) else {"text": entry}
            weight = fields.pop("weight", 1)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
                refuse(rule, f"weight {weight!r} must be a positive number")
            if not all(isinstance(name, str) and isinstance(value, str) for name, value in fields.items()):
                refuse(rule, f"alternative {entry!r} has a name or value that is not text; put it in quotes")
            if "text" not in fields:
                refuse(rule, f"alternative {entry!r} needs a key 'text'")
            fields["text"] = _layout(fields["text"])
            yield Alternative(weight, self._template(rule, fields["text"]), _with_capitals(fields))

    def _template(self, rule: str, text: str) -> list[Node]:
        tokens = _TOKEN.findall(text)
        if "".join(tokens) != text:
            refuse(rule, f"a brace is not opened or not closed in {text!r}")
        # The alternatives of every open bracket. The template itself is the outermost, with one alternative.
        open_choices: list[list[list[Node]]] = [[[]]]
        for token in tokens:
            if token in "|]" and len(open_choices) == 1:
                refuse(rule, f"{token!r} is outside of brackets in {text!r}")
            if token == "[":
                open_choices.append([[]])
            elif token == "|":
                open_choices[-1].append([])
            elif token == "]":
                choice = Choice(rule, inline=True)
                choice.distribution = Distribution(Alternative(1, nodes) for nodes in open_choices.pop())
                open_choices[-1][-1].append(choice)
            elif token.startswith("{"):
                open_choices[-1][-1].append(self._reference(rule, token))
            else:
                open_choices[-1][-1].append(FixedText(token))
        if len(open_choices) > 1:
            refuse(rule, f"a bracket is not closed in {text!r}")
        return open_choices[0][0]

    def _reference(self, rule: str, token: str) -> Node:
        match = _REFERENCE.fullmatch(token)
        if match is None:
            refuse(rule, f"{token} is none of {{rule}}, {{x:rule}}, {{x:rule-y}}, {{x}}, {{x.attribute}}, {{rule/x}}")
        name, form, variable, drawn, excluded = match.groups()
        if variable:
            prefix = f"{name}/"
            choices = {
                key.removeprefix(prefix): choice for key, choice in self._choices.items() if key.startswith(prefix)
            }
            return Dispatch(rule, token, variable, self._slot(variable), choices)
        if name in self._choices and not (form or drawn):
            return self._choices[name]
        variable = name[0].lower() + name[1:]
        plain = "Text" if name[0].isupper() else "text"
        if variable in self._choices:
            refuse(rule, f"{token}: {variable!r} is the name of a rule; give the variable another name")
        if not drawn:
            return Variable(rule, token, variable, self._slot(variable), form or plain)
        if drawn not in self._choices:
            refuse(rule, f"{token} draws from a rule {drawn!r}, which does not exist; add it")
        others = {other: self._slot(other) for other in excluded.split("-")[1:]}
        return Draw(rule, token, variable, self._slot(variable), plain, self._choices[drawn], others)

    def _slot(self, variable: str) -> int:
        return self._slots.setdefault(variable, len(self._slots))


def _with_capitals(forms: Mapping[str, str]) -> dict[str, str]:
    return {**forms, **{_capital(name): _capital(text) for name, text in forms.items()}}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _layout(text: str) -> str:
    """Return a template with spaces and blank lines for its line breaks, as stories.yaml explains."""
    text = re.sub(r"\s*\n\s*(?=[|\]])|(?<=[\[|])\s*\n\s*", "", text.strip())
    return re.sub(r"\s*\n\s*", lambda gap: "\n\n" if gap[0].count("\n") > 1 else " ", text)

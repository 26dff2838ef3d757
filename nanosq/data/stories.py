"""The embedded corpus: short children's stories drawn from a probabilistic grammar whose entropy is known exactly.

The notation of the grammar is explained on top of stories.yaml.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import yaml

from nanosq.data.sources import Document

START = "story"
_TOKEN = re.compile(r"\{[^{}]*\}|[\[\]|]|[^{}\[\]|]+")
_REFERENCE = re.compile(r"\{([A-Za-z_]+)(?:\.([A-Za-z_]+)|/([a-z_]+)|:([a-z_]+)((?:-[a-z_]+)*))?\}")


def stories(
    split: str,
    *,
    n_train: int = 12_000,
    n_val: int = 500,
    n_test: int = 500,
    seed: int = 0,
    grammar: str = str(Path(__file__).with_name("stories.yaml")),
) -> Iterator[Document]:
    """A source: independent stories of a split ("train", "val" or "test"); each split has its own random stream."""
    sizes = {"train": n_train, "val": n_val, "test": n_test}
    if split not in sizes:
        raise ValueError(f"split must be one of {', '.join(sizes)}, not {split!r}")
    compiled = Grammar.load(grammar)
    rng = random.Random(f"{seed}/{split}")
    for _ in range(sizes[split]):
        yield compiled.sample(rng)


class Grammar:
    """A probabilistic grammar without recursion, whose variables hold for a whole text."""

    def __init__(self, rules: Mapping[str, object]) -> None:
        """Compile rules as a grammar file holds them. ValueError in one line that names the rule and its problem."""
        self._slots: dict[str, int] = {}  # where a variable's value stands in an environment
        self._choices = {rule: Choice(rule) for rule in rules}
        if START not in rules:
            _refuse(START, "is missing")
        for rule, entries in rules.items():
            self._choices[rule].table = Table(self._alternatives(rule, entries))
        self._choices[START].check({})

    @classmethod
    def load(cls, path: str | Path) -> Grammar:
        """The grammar in a YAML file. ValueError in one line where the file is no grammar."""
        try:
            rules = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            if not (isinstance(rules, dict) and all(isinstance(rule, str) for rule in rules)):
                raise ValueError("a grammar maps the names of rules to lists of alternatives")
            return cls(rules)
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def sample(self, rng: random.Random) -> Document:
        """One text and the log-probability, in nats, of the choices that made it."""
        written: list[str] = []
        log_probability = self._choices[START].sample(rng, [_NOTHING] * len(self._slots), written)
        return Document("".join(written), log_probability)

    def log_probability(self, text: str) -> float:
        """Nats, summed over all derivations of the text; -inf where there is none.

        A dynamic program: it carries every state (position, values of the variables) that some derivation of a
        beginning of the text can be in, with the total probability of those derivations, through the grammar.
        """
        start = {(0, (_NOTHING,) * len(self._slots)): 0.0}
        total = -math.inf
        for (position, _), log_probability in self._choices[START].advance(text, start).items():
            if position == len(text):
                total = _log_add(total, log_probability)
        return total

    def alternatives(self) -> Iterator[tuple[str, Alternative]]:
        """Every alternative with the name of its rule, those written inside templates included."""
        waiting: list[Choice] = list(self._choices.values())
        while waiting:
            choice = waiting.pop()
            for alternative in choice.table.alternatives:
                yield choice.rule, alternative
                waiting += [node for node in alternative.nodes if isinstance(node, Choice) and node.inline]

    def _alternatives(self, rule: str, entries: object) -> Iterator[Alternative]:
        if not isinstance(entries, list) or not entries:
            _refuse(rule, "is not a list of alternatives")
        for entry in entries:
            fields = dict(entry) if isinstance(entry, dict) else {"text": entry}
            weight = fields.pop("weight", 1)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
                _refuse(rule, f"weight {weight!r} is not a positive number")
            if not all(isinstance(name, str) and isinstance(value, str) for name, value in fields.items()):
                _refuse(rule, f"alternative {entry!r} has a part that is not text (quote it)")
            if "text" not in fields:
                _refuse(rule, f"alternative {entry!r} has no text")
            fields["text"] = _layout(fields["text"])
            yield Alternative(weight, self._template(rule, fields["text"]), _with_capitals(fields))

    def _template(self, rule: str, text: str) -> list[Node]:
        tokens = _TOKEN.findall(text)
        if "".join(tokens) != text:
            _refuse(rule, f"a brace without its partner in {text!r}")
        # For each open bracket its alternatives; the template itself is the outermost, with one.
        open_choices: list[list[list[Node]]] = [[[]]]
        for token in tokens:
            if token in "|]" and len(open_choices) == 1:
                _refuse(rule, f"{token!r} outside of brackets in {text!r}")
            if token == "[":
                open_choices.append([[]])
            elif token == "|":
                open_choices[-1].append([])
            elif token == "]":
                choice = Choice(rule, inline=True)
                choice.table = Table(Alternative(1, nodes) for nodes in open_choices.pop())
                open_choices[-1][-1].append(choice)
            elif token.startswith("{"):
                open_choices[-1][-1].append(self._reference(rule, token))
            else:
                open_choices[-1][-1].append(Literal(token))
        if len(open_choices) > 1:
            _refuse(rule, f"a bracket without its partner in {text!r}")
        return open_choices[0][0]

    def _reference(self, rule: str, token: str) -> Node:
        match = _REFERENCE.fullmatch(token)
        if match is None:
            _refuse(rule, f"cannot read {token}")
        name, form, variable, drawn, excluded = match.groups()
        if variable:
            prefix = f"{name}/"
            choices = {key.removeprefix(prefix): each for key, each in self._choices.items() if key.startswith(prefix)}
            return Dispatch(rule, token, variable, self._slot(variable), choices)
        if name in self._choices and not (form or drawn):
            return self._choices[name]
        variable = name[0].lower() + name[1:]
        plain = "Text" if name[0].isupper() else "text"
        if variable in self._choices:
            _refuse(rule, f"{token} uses the name of a rule as a variable")
        if not drawn:
            return Variable(rule, token, variable, self._slot(variable), form or plain)
        if drawn not in self._choices:
            _refuse(rule, f"{token} draws from unknown rule {drawn!r}")
        others = {other: self._slot(other) for other in excluded.split("-")[1:]}
        return Draw(rule, token, variable, self._slot(variable), plain, self._choices[drawn], others)

    def _slot(self, variable: str) -> int:
        return self._slots.setdefault(variable, len(self._slots))


@dataclass(eq=False, slots=True)
class Alternative:
    """One way to expand a rule; where the rule is drawn from, a value, with its attributes in `forms`."""

    weight: float
    nodes: list[Node]
    forms: dict[str, str] = field(default_factory=dict)

    def advance(self, text: str, states: States) -> States:
        for node in self.nodes:
            if not states:
                break
            states = node.advance(text, states)
        return states


_NOTHING = Alternative(1, [])  # the value of a variable that is not bound yet


class Table:
    """Alternatives with their normalised probabilities."""

    def __init__(self, alternatives: Iterable[Alternative]) -> None:
        self.alternatives = list(alternatives)
        self.cumulative = list(accumulate(alternative.weight for alternative in self.alternatives))
        self.log_probabilities = [math.log(each.weight / self.cumulative[-1]) for each in self.alternatives]

    def __iter__(self) -> Iterator[tuple[Alternative, float]]:
        return zip(self.alternatives, self.log_probabilities, strict=True)

    def pick(self, rng: random.Random) -> tuple[Alternative, float]:
        # Up to the last boundary only: rounding may bring the product up to that one.
        index = bisect(self.cumulative, rng.random() * self.cumulative[-1], 0, len(self.cumulative) - 1)
        return self.alternatives[index], self.log_probabilities[index]


# Each kind of node has three methods. `sample` writes its text, binds what it draws, and returns the log-probability
# of its choices. `advance` returns the states behind it, for every way in which the text goes on with it. `check`
# refuses a variable that may lack the value or attribute asked for, and returns the values variables may have after it.


@dataclass(eq=False, slots=True)
class Literal:
    """Text that stands in the template."""

    text: str

    def sample(self, rng: random.Random, environment: list[Alternative], written: list[str]) -> float:
        written.append(self.text)
        return 0.0

    def advance(self, text: str, states: States) -> States:
        end = len(self.text)
        return {(at + end, values): total for (at, values), total in states.items() if text.startswith(self.text, at)}

    def check(self, bindings: Bindings) -> Bindings:
        return bindings


@dataclass(eq=False, slots=True)
class Choice:
    """One of the alternatives of a rule, or of a bracket in a template of that rule."""

    rule: str
    inline: bool = False
    table: Table = field(init=False)  # set later: a rule may refer to one that stands further down
    checking: bool = False

    def sample(self, rng: random.Random, environment: list[Alternative], written: list[str]) -> float:
        alternative, log_probability = self.table.pick(rng)
        for node in alternative.nodes:
            log_probability += node.sample(rng, environment, written)
        return log_probability

    def advance(self, text: str, states: States) -> States:
        reached: States = {}
        for alternative, log_probability in self.table:
            for state, total in alternative.advance(text, states).items():
                _add(reached, state, total + log_probability)
        return reached

    def check(self, bindings: Bindings) -> Bindings:
        if self.checking:
            _refuse(self.rule, "refers to itself")
        self.checking = True
        ends = []
        for alternative in self.table.alternatives:
            end = bindings
            for node in alternative.nodes:
                end = node.check(end)
            ends.append(end)
        self.checking = False
        return _common(ends)


@dataclass(eq=False, slots=True)
class Variable:
    """The value of a variable, or an attribute of it."""

    rule: str
    token: str
    variable: str
    slot: int
    form: str

    def sample(self, rng: random.Random, environment: list[Alternative], written: list[str]) -> float:
        written.append(environment[self.slot].forms[self.form])
        return 0.0

    def advance(self, text: str, states: States) -> States:
        reached: States = {}
        for (at, values), total in states.items():
            form = values[self.slot].forms[self.form]
            if text.startswith(form, at):
                _add(reached, (at + len(form), values), total)
        return reached

    def check(self, bindings: Bindings) -> Bindings:
        for value in _values(self, self.variable, bindings):
            if self.form not in value.forms:
                _refuse(self.rule, f"{self.token}: {value.forms['text']!r} has no such attribute")
        return bindings


@dataclass(eq=False, slots=True)
class Draw(Variable):
    """A value drawn from a rule, other than those of some variables, bound to a variable and written."""

    choice: Choice
    others: dict[str, int]
    tables: dict[tuple[str, ...], Table] = field(default_factory=dict)

    def sample(self, rng: random.Random, environment: list[Alternative], written: list[str]) -> float:
        drawn, log_probability = self._table(environment).pick(rng)
        environment[self.slot] = drawn
        written.append(drawn.forms[self.form])
        return log_probability

    def advance(self, text: str, states: States) -> States:
        reached: States = {}
        for (at, values), total in states.items():
            for drawn, log_probability in self._table(values):
                form = drawn.forms[self.form]
                if text.startswith(form, at):
                    bound = (*values[: self.slot], drawn, *values[self.slot + 1 :])
                    _add(reached, (at + len(form), bound), total + log_probability)
        return reached

    def check(self, bindings: Bindings) -> Bindings:
        for other in self.others:
            _values(self, other, bindings)
        values = self.choice.table.alternatives
        if not all(isinstance(node, Literal) for value in values for node in value.nodes):
            _refuse(self.rule, f"{self.token}: only a rule of plain texts can be drawn from")
        if len({value.forms["text"] for value in values}) <= len(self.others):
            _refuse(self.rule, f"{self.token}: nothing may be left to draw")
        return {**bindings, self.variable: frozenset(values)}

    def _table(self, values: Sequence[Alternative]) -> Table:
        taken = tuple(values[slot].forms["text"] for slot in self.others.values())
        if taken not in self.tables:
            left = (value for value in self.choice.table.alternatives if value.forms["text"] not in taken)
            self.tables[taken] = Table(left)
        return self.tables[taken]


@dataclass(eq=False, slots=True)
class Dispatch:
    """The rule that belongs to the value of a variable."""

    rule: str
    token: str
    variable: str
    slot: int
    choices: dict[str, Choice]

    def sample(self, rng: random.Random, environment: list[Alternative], written: list[str]) -> float:
        return self.choices[environment[self.slot].forms["text"]].sample(rng, environment, written)

    def advance(self, text: str, states: States) -> States:
        reached: States = {}
        for (at, values), before in states.items():
            choice = self.choices[values[self.slot].forms["text"]]
            for state, total in choice.advance(text, {(at, values): before}).items():
                _add(reached, state, total)
        return reached

    def check(self, bindings: Bindings) -> Bindings:
        ends = []
        for value in _values(self, self.variable, bindings):
            if value.forms["text"] not in self.choices:
                _refuse(self.rule, f"{self.token}: no rule is named after the value {value.forms['text']!r}")
            ends.append(self.choices[value.forms["text"]].check(bindings))
        return _common(ends)


Node = Literal | Choice | Variable | Draw | Dispatch
States = dict[tuple[int, tuple[Alternative, ...]], float]  # (position, values of the variables): log-probability
Bindings = Mapping[str, frozenset[Alternative]]  # a variable that is bound for sure: the values it may have


def _values(node: Variable | Dispatch, variable: str, bindings: Bindings) -> frozenset[Alternative]:
    if variable not in bindings:
        _refuse(node.rule, f"{node.token}: {variable!r} is no rule, and no variable that is sure to be bound here")
    return bindings[variable]


def _common(ends: Sequence[Bindings]) -> Bindings:
    certain = set.intersection(*(set(end) for end in ends))
    return {variable: frozenset[Alternative]().union(*(end[variable] for end in ends)) for variable in certain}


def _add(totals: States, state: tuple[int, tuple[Alternative, ...]], total: float) -> None:
    totals[state] = _log_add(totals[state], total) if state in totals else total


def _log_add(a: float, b: float) -> float:
    low, high = sorted((a, b))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _with_capitals(forms: Mapping[str, str]) -> dict[str, str]:
    return {**forms, **{_capital(name): _capital(text) for name, text in forms.items()}}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _layout(text: str) -> str:
    """A template's line breaks as stories.yaml says that they are written."""
    text = re.sub(r"\s*\n\s*(?=[|\]])|(?<=[\[|])\s*\n\s*", "", text.strip())
    return re.sub(r"\s*\n\s*", lambda gap: "\n\n" if gap[0].count("\n") > 1 else " ", text)


def _refuse(rule: str, problem: str) -> NoReturn:
    raise ValueError(f"rule {rule!r}: {problem}")

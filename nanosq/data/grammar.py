"""The nodes of a compiled grammar, which sample text, parse text with exact probabilities, and check themselves.

Every kind of node has three methods:

- `sample` writes the text of the node, binds the variable that it draws, and returns its log-probability.
- `advance` takes the states before the node and returns the states after it, for every way in which the text matches.
- `check` raises ValueError for a variable that may lack the value or attribute in use. It returns the variables that
  are bound after the node, with the values that they may have.
"""
# ruff: noqa: D102  the methods of all nodes are documented above

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NoReturn


@dataclass(eq=False, slots=True)
class Alternative:
    """One way to expand a rule. If a variable is drawn from the rule, a value with its attributes in `forms`."""

    weight: float
    nodes: list[Node]
    forms: dict[str, str] = field(default_factory=dict)

    def advance(self, text: str, states: States) -> States:
        for node in self.nodes:
            if not states:
                break
            states = node.advance(text, states)
        return states


NOTHING = Alternative(1, [])  # the value of a variable that is not bound yet


class Distribution:
    """Alternatives with their normalized probabilities."""

    def __init__(self, alternatives: Iterable[Alternative]) -> None:
        self.alternatives = list(alternatives)
        self.cumulative = list(accumulate(alternative.weight for alternative in self.alternatives))
        self.log_probabilities = [math.log(one.weight / self.cumulative[-1]) for one in self.alternatives]

    def __iter__(self) -> Iterator[tuple[Alternative, float]]:
        return zip(self.alternatives, self.log_probabilities, strict=True)

    def pick(self, rng: random.Random) -> tuple[Alternative, float]:
        # The last boundary is left out, because rounding may make the product equal to it.
        index = bisect(self.cumulative, rng.random() * self.cumulative[-1], 0, len(self.cumulative) - 1)
        return self.alternatives[index], self.log_probabilities[index]


@dataclass(eq=False, slots=True)
class FixedText:
    """Fixed text of a template."""

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
    """A choice between the alternatives of a rule, or of a bracket in a template of that rule."""

    rule: str
    inline: bool = False
    distribution: Distribution = field(init=False)  # set later: a rule may refer to a later rule
    checking: bool = False

    def sample(self, rng: random.Random, environment: list[Alternative], written: list[str]) -> float:
        alternative, log_probability = self.distribution.pick(rng)
        for node in alternative.nodes:
            log_probability += node.sample(rng, environment, written)
        return log_probability

    def advance(self, text: str, states: States) -> States:
        reached: States = {}
        for alternative, log_probability in self.distribution:
            for state, total in alternative.advance(text, states).items():
                _add(reached, state, total + log_probability)
        return reached

    def check(self, bindings: Bindings) -> Bindings:
        if self.checking:
            refuse(self.rule, "it refers to itself, directly or through other rules; remove the cycle")
        self.checking = True
        ends = []
        for alternative in self.distribution.alternatives:
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
                refuse(self.rule, f"{self.token}: the value {value.forms['text']!r} lacks this attribute; add it")
        return bindings


@dataclass(eq=False, slots=True)
class Draw(Variable):
    """A value drawn from a rule, but not one of those of some other variables, bound to a variable and written."""

    choice: Choice
    others: dict[str, int]
    distributions: dict[tuple[str, ...], Distribution] = field(default_factory=dict)

    def sample(self, rng: random.Random, environment: list[Alternative], written: list[str]) -> float:
        drawn, log_probability = self._distribution(environment).pick(rng)
        environment[self.slot] = drawn
        written.append(drawn.forms[self.form])
        return log_probability

    def advance(self, text: str, states: States) -> States:
        reached: States = {}
        for (at, values), total in states.items():
            for drawn, log_probability in self._distribution(values):
                form = drawn.forms[self.form]
                if text.startswith(form, at):
                    bound = (*values[: self.slot], drawn, *values[self.slot + 1 :])
                    _add(reached, (at + len(form), bound), total + log_probability)
        return reached

    def check(self, bindings: Bindings) -> Bindings:
        for other in self.others:
            _values(self, other, bindings)
        values = self.choice.distribution.alternatives
        if not all(isinstance(node, FixedText) for value in values for node in value.nodes):
            refuse(self.rule, f"{self.token}: a rule to draw from must not have braces or brackets")
        if len({value.forms["text"] for value in values}) <= len(self.others):
            refuse(self.rule, f"{self.token}: no value may be left to draw; add to {self.choice.rule!r}")
        return {**bindings, self.variable: frozenset(values)}

    def _distribution(self, values: Sequence[Alternative]) -> Distribution:
        taken = tuple(values[slot].forms["text"] for slot in self.others.values())
        if taken not in self.distributions:
            left = (value for value in self.choice.distribution.alternatives if value.forms["text"] not in taken)
            self.distributions[taken] = Distribution(left)
        return self.distributions[taken]


@dataclass(eq=False, slots=True)
class Dispatch:
    """A choice between the alternatives of the rule that belongs to the value of a variable."""

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
                refuse(self.rule, f"{self.token}: a rule is missing for the value {value.forms['text']!r}; add it")
            ends.append(self.choices[value.forms["text"]].check(bindings))
        return _common(ends)


Node = FixedText | Choice | Variable | Draw | Dispatch
States = dict[tuple[int, tuple[Alternative, ...]], float]  # (position, values of variables): log-probability
Bindings = Mapping[str, frozenset[Alternative]]  # certainly bound variables and their possible values


def _values(node: Variable | Dispatch, variable: str, bindings: Bindings) -> frozenset[Alternative]:
    if variable not in bindings:
        problem = f"{variable!r} is no rule, and no variable that always has a value here"
        refuse(node.rule, f"{node.token}: {problem}; draw it before, as in {{{variable}:RULE}}")
    return bindings[variable]


def _common(ends: Sequence[Bindings]) -> Bindings:
    certain = set.intersection(*(set(end) for end in ends))
    return {variable: frozenset[Alternative]().union(*(end[variable] for end in ends)) for variable in certain}


def _add(totals: States, state: tuple[int, tuple[Alternative, ...]], total: float) -> None:
    totals[state] = log_add(totals[state], total) if state in totals else total


def log_add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    low, high = sorted((a, b))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def refuse(rule: str, problem: str) -> NoReturn:
    """Raise ValueError for a bad rule."""
    raise ValueError(f"rule {rule!r}: {problem}")

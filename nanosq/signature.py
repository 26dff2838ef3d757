"""The signature of a function or class as the schema of its arguments: names, types and ranges."""

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_type_hints

from annotated_types import DocInfo

from nanosq import ranges
from nanosq.suggestion import closest

# What a value must be, by the kind of error of pydantic.
LIMITS = {
    "greater_than_equal": "at least {ge:.10g}",
    "greater_than": "above {gt:.10g}",
    "less_than_equal": "at most {le:.10g}",
    "less_than": "below {lt:.10g}",
    "string_too_short": "a name that is not empty",
    "too_short": "a list of at least {min_length} values",
    "too_long": "a list of at most {max_length} values",
}


def check_arguments(
    group: str, target: Callable[..., Any], configured: Mapping[str, Any], *, name: str, given: Collection[str] = ()
) -> None:
    """Check all keyword arguments of a component as `check_values` does, and that none is missing.

    `given` has the names of arguments that the program will add.
    """
    check_values(group, target, configured, name=name)
    for p in _parameters(group, target, name):
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in {*configured, *given}:
            raise ValueError(f"{group}.{p.name} is missing: {name} needs it")


def check_values(group: str, target: Callable[..., Any], configured: Mapping[str, Any], *, name: str) -> None:
    """Check keyword arguments against the signature of a function or class.

    Args:
        group: Dotted key of the component, for messages: "loss", "data.source".
        target: The function or class.
        configured: Arguments as a configuration has them, as plain values.
        name: Name of the target, for messages.

    Raises:
        ValueError: An argument is unknown, of the wrong type or out of range. The message names its key.
    """
    parameters, hints = _parameters(group, target, name), _hints(target)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    accepted = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for key, value in configured.items():
        if key not in accepted and not takes_any:
            advice = closest(key, accepted, otherwise=f"it has {', '.join(accepted) or 'none'}")
            raise ValueError(f"{group}.{key}: {name} has no argument {key!r}{advice}")
        if value == "???":
            raise ValueError(f"{group}.{key} is missing: set {group}.{key}=VALUE on the command line")
        check_value(f"{group}.{key}", value, hints.get(key, Any))


def check_call(group: str, target: Callable[..., Any], *positional: Any, **keywords: Any) -> None:
    """Raise a ValueError if a call of a component lacks an argument: a function that is called later is partial."""
    try:
        inspect.signature(target).bind(*positional, **keywords)
    except TypeError as error:
        raise ValueError(f"{group}: {error}; set {group}._partial_=true for what is called later") from error


def _parameters(group: str, target: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        return [*inspect.signature(target).parameters.values()]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{group}._target_: {name} has no signature: name a function that calls it") from error


def check_fields(section: Any, name: Callable[[str], str]) -> None:
    """Check the values of a dataclass against the types of its fields. `name` returns what the user calls a field.

    Raises:
        ValueError: A value is of the wrong type or out of range. The message begins with the name.
    """
    for key, hint in get_type_hints(type(section), include_extras=True).items():
        check_value(name(key), getattr(section, key), hint)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of arguments. For classes of torch.optim, these are those that state a range."""
    try:
        function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        hints = get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError):  # annotations that only a type checker understands
        hints = {}
    return hints | (dict(ranges.OF_TORCH_OPTIM) if str(target.__module__).startswith("torch.optim") else {})


def check_value(key: str, value: Any, hint: Any) -> None:
    """Raise a ValueError that begins with the key if a plain value is not of a type, or not in its range."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    try:
        # JSON has what a configuration has: lists stand for tuples and integers for floats. Nothing else is converted.
        text = json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{key}={value}: must be finite") from error
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_json(text, strict=True)
    except ValidationError as error:
        if described := [item.documentation for item in getattr(hint, "__metadata__", ()) if isinstance(item, DocInfo)]:
            raise ValueError(f"{key}={value}: must be {described[0]}") from error
        first = error.errors()[0]
        if limit := LIMITS.get(first["type"]):
            raise ValueError(f"{key}={value}: must be {limit.format(**first['ctx'])}") from error
        raise ValueError(f"{key}: {first['msg'].lower()}, not {value!r}") from error
    except (PydanticUserError, TypeError) as error:
        raise ValueError(f"{key}: the type {hint} in the signature cannot be checked: {error}") from error

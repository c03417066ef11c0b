"""JSON from outside: parsed strictly, taken value by value, each of the type it has to be."""

from __future__ import annotations

import json
from typing import Any

from jaxdqn.redact import short


def parse_object(content: bytes) -> dict[str, Any]:
    """Return the one object that a file holds.

    Raises:
        ValueError: it holds none, or a constant that JSON does not have.
    """

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    try:
        found = json.loads(content.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"it is no JSON object: {short(found)}")
    return found


def take(content: dict[str, Any], name: str, kind: type) -> Any:
    """Return a member of an object, which is a `dict`, `str`, `int` or `list`.

    Raises:
        ValueError: it is missing or of another type.
    """
    value = content.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        allowed = {dict: "an object", str: "a string", int: "a whole number", list: "a list"}[kind]
        raise ValueError(f"{name} = {short(value)} is not allowed: {allowed}")
    return value


def is_number(value: Any) -> bool:
    """Return whether a value is a number that a float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300

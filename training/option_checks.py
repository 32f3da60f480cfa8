"""Checks of options, with messages that name the option and what is allowed."""

from __future__ import annotations

from typing import Any


class ConfigError(ValueError):
    """The configuration cannot be used; the message says which option, and what is allowed."""


def check_kind(name: str, value: Any, annotation: str) -> None:
    """Compare a value with its annotation, as far as YAML's kinds go."""
    if value is None and "None" in annotation:
        return
    kind = annotation.split(" |")[0].split("[")[0]
    kinds: dict[str, tuple[str, Any]] = {
        "str": ("a text", str),
        "bool": ("true or false", bool),
        "int": ("a whole number", int),
        "float": ("a number (YAML reads 1e-4 as text: write 1.0e-4)", (int, float)),
        "tuple": ("a list of numbers", (list, tuple)),
    }
    if kind not in kinds:
        return
    expected, types = kinds[kind]
    right = isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))
    if right and kind == "tuple":
        right = all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        whole = "[int" not in annotation or all(isinstance(v, int) for v in value)
        right = right and whole
    require(right, name, value, expected)


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise ConfigError for the option `name`, unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{name} is {value!r}; it must be {allowed}.")


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Accept one text or a list of texts."""
    found = (value,) if isinstance(value, str) else tuple(value or ())
    require(all(isinstance(text, str) for text in found), name, value, "a list of texts")
    return found

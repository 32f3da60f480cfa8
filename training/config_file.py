"""Configurations in YAML files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from .config import SampleConfig, TrainingConfig
from .option_checks import ConfigError


def read_config(path: Path, changes: Sequence[str] = ()) -> TrainingConfig:
    """Read a YAML file.

    Args:
        path: the file.
        changes: options that replace those of the file, each as `name=value` in YAML.

    Raises:
        ConfigError: it cannot be read, has unknown options, lacks some, or values out of range.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        changed = {name: yaml.safe_load(text) for name, text in map(_pair, changes)}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} should hold options, one `name: value` a line.")
    return make_config({**values, **changed})


def make_config(values: Mapping[str, Any]) -> TrainingConfig:
    """Make a configuration from options by name.

    Raises:
        ConfigError: as above.
    """
    values = dict(values)
    samples = values.pop("samples", None) or {}
    if not isinstance(samples, Mapping):
        raise ConfigError("samples should hold options: every, videos, prompts, ...")
    _check_names("", values, TrainingConfig)
    _check_names("samples.", samples, SampleConfig)
    missing = [name for name in ("checkpoint", "videos", "output") if not values.get(name)]
    if missing:
        raise ConfigError(f"The configuration lacks {', '.join(missing)}.")
    return TrainingConfig(**values, samples=SampleConfig(**samples))


def _pair(change: str) -> tuple[str, str]:
    name, equals, text = change.partition("=")
    if not equals:
        raise ConfigError(f"'{change}' is no change of an option: write it as name=value.")
    return name, text


def _check_names(prefix: str, values: Mapping[str, Any], kind: type) -> None:
    known = [each.name for each in fields(kind)]
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        named = ", ".join(prefix + name for name in unknown)
        raise ConfigError(f"Unknown option {named}. There are: {', '.join(known)}.")

"""The settings of a live stream: what its node was given, and what was changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from ..run.spec import StreamSpec
from ..stream.live_prompts import change_prompt
from ..stream.prompt_track import KEY
from ..stream.similar_frames import SkipRule
from .controls import Change, ControlError

PROMPTS = {"prompt": "positive", "negative": "negative"}
_NO_SKIPS = 1.0


@dataclass(frozen=True)
class LiveSettings:
    """A value; a change makes another one.

    Attributes:
        inputs: the arguments of `StreamSpec.from_inputs`.
        texts: the prompts that were changed, as `checked` returned them, by setting.
    """

    inputs: Mapping[str, Any]
    texts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def spec(self) -> StreamSpec:
        """The specification of a stream with these settings.

        Raises:
            ValueError: there is no such stream.
        """
        return StreamSpec.from_inputs(**self.inputs)

    def value(self, control: str) -> Any:
        """Return a setting's value as the live page knows it; None where it has none to show."""
        if control in PROMPTS:
            return self.texts.get(control)
        if control == "threshold":
            rule: SkipRule | None = self.inputs.get("frame_filter")
            return _NO_SKIPS if rule is None else rule.threshold
        if control == "seed":
            return str(self.inputs["seed"])
        return None if control == "cut" else self.inputs[control]

    def changed(self, change: Change) -> LiveSettings:
        """Return the settings after a change of anything but a prompt.

        Raises:
            ControlError: the stream cannot have the value.
        """
        name, value = change.control, change.value
        if name == "cut":
            return self
        if name in ("steps", "denoise") and self.inputs.get("sigmas") is not None:
            raise ControlError(
                "unavailable",
                f"'{name}' has no effect: the node's 'sigmas' determine the noise levels.",
                "Disconnect 'sigmas', and queue the graph again.",
            )
        if name == "threshold":
            rule = self.inputs.get("frame_filter") or SkipRule()
            new = None if value == _NO_SKIPS else SkipRule(value, rule.most_skipped)
            settings = self._with(frame_filter=new)
        else:
            settings = self._with(**{name: int(value) if name == "seed" else value})
        try:
            settings.spec  # noqa: B018 (refuses what no stream can have)
        except ValueError as error:
            raise ControlError("value", str(error), "Give it another value.") from error
        return settings

    def with_prompt(
        self, change: Change, conditioning: Any, frame: int, oldest: int
    ) -> LiveSettings:
        """Return the settings after the change of a prompt.

        Args:
            change: the change.
            conditioning: its text, encoded.
            frame, oldest: see `change_prompt`.

        Raises:
            ControlError: the new prompt cannot follow the one that the stream has.
        """
        kind, blend = PROMPTS[change.control], change.value["blend"]
        try:
            prompt = change_prompt(self.inputs[kind], conditioning, frame, blend, oldest)
        except ValueError as error:
            raise ControlError("unavailable", str(error), "Change the graph.") from error
        texts = {**self.texts, change.control: change.value}
        return LiveSettings({**self.inputs, kind: prompt}, texts)

    def settled(self) -> LiveSettings:
        """Return the settings for a stream that starts over: changed prompts are all there is.

        Their blends counted the frames of the stream before.
        """
        inputs = dict(self.inputs)
        for control in self.texts:
            kind = PROMPTS[control]
            inputs[kind] = [_last(text, extra) for text, extra in inputs[kind]]
        return LiveSettings(inputs, self.texts)

    def _with(self, **inputs: Any) -> LiveSettings:
        return LiveSettings({**self.inputs, **inputs}, self.texts)


def _last(text: Tensor, extra: Mapping[str, Any]) -> list:
    """Return a part of a conditioning with the last of its texts."""
    rest = {name: value for name, value in extra.items() if name != KEY}
    return [extra[KEY].texts[-1] if KEY in extra else text, rest]

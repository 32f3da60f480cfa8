"""A recording that is read from its folder, to be rendered again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..stream.live_prompts import LiveTimeline
from ..stream.prompt_timeline import PromptChange
from ..stream.prompt_track import KEY, PromptTrack
from ..stream.similar_frames import SkipRule
from .controls import Change, ControlError, checked
from .recording import FACTS, FRAMES, STATE, TEXTS, VERSION
from .settings import PROMPTS, LiveSettings

# What is not repeated where the node's own settings hold.
_OWN = ("steps", "denoise", "seed", "cfg")


class RecordingError(ValueError):
    """A folder that is no recording, or a damaged one. The message names it."""


@dataclass(frozen=True)
class LoadedRecording:
    """What a recording says.

    Attributes:
        folder: where it lies.
        facts: the content of its `recording.json`.
        texts: encoded prompts by name.
        as_recorded: whether seed, steps, denoise, cfg and filter are those of the recording, too.
    """

    folder: Path
    facts: Mapping[str, Any]
    texts: Mapping[str, Tensor]
    as_recorded: bool = True

    @classmethod
    def read(cls, folder: Path, as_recorded: bool) -> LoadedRecording:
        """Read a folder that `Recording` wrote.

        Raises:
            RecordingError: it is none, damaged, or of another version.
        """
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            texts = load_file(folder / TEXTS) if (folder / TEXTS).is_file() else {}
            _check(facts, texts)
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise RecordingError(
                f"{folder.name} is no recording that can be read ({error}). Recordings are made by "
                "'Live Stream', into output/live2diff/recordings."
            ) from error
        return cls(folder, facts, texts, as_recorded)

    def with_prompts(self, lines: Sequence[str], encode: Callable[[str], Any]) -> LoadedRecording:
        """Return the recording with other prompts at the same moments.

        Args:
            lines: texts in the order in which the prompt was changed; empty ones and those that
                are missing leave what was recorded.
            encode: encodes a text.

        Raises:
            RecordingError: there are more lines than changes.
        """
        changes = [dict(entry) for entry in self.facts["changes"]]
        prompts = [entry for entry in changes if entry["control"] == "prompt"]
        if len(lines) > len(prompts):
            raise RecordingError(
                f"There are {len(lines)} prompts, but in {self.folder.name} the prompt was changed "
                f"{len(prompts)} times. Give it one line for each change; the first prompt is that "
                "of the graph."
            )
        texts = dict(self.texts)
        for entry, line in zip(prompts, lines, strict=False):
            if line:
                entry["text"] = f"other {entry['frame']}"
                entry["value"] = {**entry["value"], "text": line}
                texts[entry["text"]] = encode(line)[0][0].cpu()
        return replace(self, facts={**self.facts, "changes": changes}, texts=texts)

    @property
    def video(self) -> Path:
        """The frames that entered the model."""
        return self.folder / FRAMES

    @property
    def state(self) -> Path | None:
        """The stream where the recording begins; None where it began there itself."""
        return self.folder / STATE if self.facts["state"] else None

    def identity(self) -> str:
        """Name all that determines what becomes of frames."""
        digest = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode())
        for name in sorted(self.texts):
            digest.update(self.texts[name].float().numpy().tobytes())
        return f"{digest.hexdigest()[:16]} {'as recorded' if self.as_recorded else 'own settings'}"

    def begin(self, inputs: Mapping[str, Any], with_state: bool) -> LiveSettings:
        """Return the settings of the first frame.

        Args:
            inputs: those of the node.
            with_state: whether the stream goes on from the recording's state.
        """
        recorded = dict(self.facts["settings"])
        inputs = dict(inputs)
        if self.as_recorded:
            inputs |= {name: recorded[name] for name in ("steps", "denoise", "cfg")}
            inputs["seed"] = int(recorded["seed"])
            rule, threshold = inputs.get("frame_filter") or SkipRule(), recorded["threshold"]
            inputs["frame_filter"] = (
                None if threshold == 1.0 else replace(rule, threshold=threshold)
            )
        for control, track in self.facts["prompts"].items():
            inputs[PROMPTS[control]] = self._conditioning(track, with_state)
        texts = {name: recorded[name] for name in self.facts["prompts"]}
        return LiveSettings(inputs, texts)

    def changes(self, frame: int) -> list[tuple[Change, Any]]:
        """Return the changes before a frame of the recording, with encoded prompts."""
        found = [entry for entry in self.facts["changes"] if entry["frame"] == frame]
        return [
            (Change(entry["control"], entry["value"]), self._text(entry))
            for entry in found
            if self.as_recorded or entry["control"] not in _OWN
        ]

    def _text(self, entry: Mapping[str, Any]) -> Any:
        return [[self.texts[entry["text"]], {}]] if "text" in entry else None

    def _conditioning(self, track: Mapping[str, Any], with_state: bool) -> list:
        texts = tuple(self.texts[name] for name in track["texts"])
        if not with_state or not track["changes"]:
            return [[texts[-1], {}]]
        changes = tuple(PromptChange(start, blend) for start, blend in track["changes"])
        return [[texts[0], {KEY: PromptTrack(texts, LiveTimeline(changes))}]]


def _check(facts: Mapping[str, Any], texts: Mapping[str, Tensor]) -> None:
    """Refuse what `Recording` did not write.

    Raises:
        KeyError, TypeError, ValueError: a part is missing or wrong.
    """
    if facts["version"] != VERSION:
        raise ValueError(f"its version is {facts['version']} rather than {VERSION}")
    names: list[Sequence[str]] = [track["texts"] for track in facts["prompts"].values()]
    for entry in facts["changes"]:
        try:
            checked(entry["control"], entry["value"])
        except ControlError as error:
            raise ValueError(f"{error} {error.remedy}") from error
        if (entry["control"] in PROMPTS) != ("text" in entry) or entry["frame"] < 0:
            raise ValueError(f"its change of {entry['control']} is damaged")
        names.append([entry["text"]] if "text" in entry else [])
    missing = {name for each in names for name in each} - texts.keys()
    if missing or not {"steps", "denoise", "cfg", "seed", "threshold"} <= facts["settings"].keys():
        raise ValueError("its prompts or settings are missing")
    int(facts["settings"]["seed"]), bool(facts["state"]), dict(facts["identity"])

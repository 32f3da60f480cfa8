"""Which window of which video is trained when: a pure function of (seed, number of the sample)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lcm
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from live2diff_core.stream.noise import FrameNoise, keyed_generator

from .cache import read_frames, read_text
from .config import TIMESTEPS, TrainingConfig
from .encoding import Encoded


@dataclass(frozen=True)
class Choice:
    """What is random about a sample, beside its noise.

    Attributes:
        video: its place in the list.
        frames: the frames of the window.
        timestep: 0..999, one for the whole window.
        from_source: whether it is noised from the video's source.
        prompted: whether the model sees its prompt.
    """

    video: int
    frames: range
    timestep: int
    from_source: bool
    prompted: bool


@dataclass(frozen=True)
class Batch:
    """B windows of L frames, in the UNet's scale.

    Attributes:
        target: [B, L, 4, h, w], what is to come out.
        start: [B, L, 4, h, w], what is noised; `target` itself without a source.
        noise: [B, L, 4, h, w].
        timesteps: [B] int64.
        text: [B, tokens, channels].
        depth: [B, L, 4, h, w] or None.
    """

    target: Tensor
    start: Tensor
    noise: Tensor
    timesteps: Tensor
    text: Tensor
    depth: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        moved: dict[str, Any] = {
            name: None if value is None else value.to(device, non_blocking=True)
            for name, value in vars(self).items()
        }
        return Batch(**moved)


class Windows:
    """All samples of a run by their number.

    Args:
        config: seed, window and probabilities.
        videos: the videos, at least one, each at least as long as a window.
        no_prompt: file of the empty text.
    """

    def __init__(self, config: TrainingConfig, videos: Sequence[Encoded], no_prompt: Path) -> None:
        """Store what the samples are made of."""
        self._config, self._videos, self._no_prompt = config, list(videos), no_prompt
        self._noise = FrameNoise(config.seed)

    def choose(self, number: int) -> Choice:
        """Draw a sample: every video once per epoch, in a new order each time."""
        config = self._config
        epoch, place = divmod(number, len(self._videos))
        index = _order(config.seed, epoch, len(self._videos))[place]
        video = self._videos[index]
        random = keyed_generator(config.seed, number, 0, "window")
        start = int(random.integers(video.frames - config.frames_needed + 1))
        steps = config.timesteps or range(TIMESTEPS)
        place_of_step = int(random.integers(len(steps)))
        source, prompt = random.random(2)
        return Choice(
            video=index,
            frames=range(start, start + config.frames_needed, config.frame_stride),
            timestep=steps[place_of_step],
            from_source=video.source is not None and source < self._source_at(place_of_step),
            prompted=bool(prompt >= config.prompt_dropout),
        )

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Read samples."""
        choices = [self.choose(number) for number in numbers]
        target = torch.stack([read_frames(self._of(c).target, c.frames) for c in choices])
        noise = [self._noise(number, 0, target.shape[1:]) for number in numbers]
        start = target
        if any(choice.from_source for choice in choices):
            start = torch.stack([self._start(*each) for each in zip(choices, target, strict=True)])
        paths = [self._of(c).depth for c in choices]
        depth = [read_frames(p, c.frames) for p, c in zip(paths, choices, strict=True) if p]
        return Batch(
            target=target,
            start=start,
            noise=torch.stack(noise),
            timesteps=torch.tensor([choice.timestep for choice in choices]),
            text=_same_length([self._text(choice) for choice in choices]),
            depth=torch.stack(depth) if depth else None,
        )

    def _source_at(self, step: int) -> float:
        given = self._config.source_probability
        return given[step] if isinstance(given, tuple) else given

    def _of(self, choice: Choice) -> Encoded:
        return self._videos[choice.video]

    def _start(self, choice: Choice, target: Tensor) -> Tensor:
        source = self._of(choice).source
        if source is None or not choice.from_source:
            return target
        return read_frames(source, choice.frames)

    def _text(self, choice: Choice) -> Tensor:
        return read_text(self._of(choice).text if choice.prompted else self._no_prompt)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    return keyed_generator(seed, epoch, 0, "order").permutation(count).tolist()


def _same_length(texts: Sequence[Tensor]) -> Tensor:
    """Repeat texts to a common length, which attention does not notice; as the host does."""
    longest = lcm(*(len(text) for text in texts))
    return torch.stack([text.repeat(longest // len(text), 1) for text in texts])

"""Sample videos: short clips translated on the way, by the same code as Stream Video."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from live2diff_core.live2diff.patch import apply_live2diff, load_motion_module
from live2diff_core.run.spec import StreamOptions, StreamSpec
from live2diff_core.stream.schedule import StepRule
from live2diff_core.video.encoder import Encoding
from live2diff_core.video.frame_size import plan_frame_size
from live2diff_core.video.reader import open_video
from live2diff_core.video.segments import assemble
from live2diff_core.video.writer import SegmentWriter

from .base_model import BaseModel
from .config import TrainingConfig


def write_samples(config: TrainingConfig, base: BaseModel, motion_file: Path, step: int) -> None:
    """Translate the sample videos with a motion-module file, as a user would.

    They are written to `samples/step_N_K.mp4` in the run's folder, input left, result right.

    Args:
        config: which videos, and how.
        base: the models. Where they have no depth model, the samples go without depth.
        motion_file: the motion module.
        step: N.
    """
    samples, folder = config.samples, Path(config.output) / "samples"
    model = apply_live2diff(base.model, load_motion_module(str(motion_file)), config.window)
    prompts = samples.prompts
    if len(prompts) == 1:
        prompts = prompts * len(samples.videos)
    for index, (video, prompt) in enumerate(zip(samples.videos, prompts, strict=True)):
        _write_sample(config, base, model, video, prompt, folder / f"step_{step:06}_{index}.mp4")


# Not in inference mode: what the host loads in it could not be trained with afterwards.
@torch.no_grad()
def _write_sample(
    config: TrainingConfig, base: BaseModel, model: Any, video: str, prompt: str, path: Path
) -> None:
    spec = _spec(config, base, model, prompt)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as scratch, open_video(video) as reader:
        info = reader.info
        plan = plan_frame_size(info.width, info.height, "fill", config.width, config.height)
        frames = list(islice(reader, config.samples.frames))
        inputs = [torch.from_numpy(plan.apply(frame.image)) for frame in frames]
        with SegmentWriter(
            Path(scratch),
            Encoding(),
            2 * config.width,
            config.height,
            info.time_base,
            frame_rate=info.frame_rate,
        ) as writer:
            outputs = _translated(spec, inputs)
            for frame, before, after in zip(frames, inputs, outputs, strict=True):
                both = torch.cat([before, after], dim=1)
                writer.write(both.numpy(), frame.time, frame.duration)
            writer.commit()
            assemble(writer.segments, path)


def _spec(config: TrainingConfig, base: BaseModel, model: Any, prompt: str) -> StreamSpec:
    """Describe the stream of a sample."""
    samples = config.samples

    def encoded(text: str) -> Any:
        return base.clip.encode_from_tokens_scheduled(base.clip.tokenize(text))

    return StreamSpec.from_inputs(
        model,
        encoded(prompt),
        encoded(""),
        seed=config.seed,
        steps=samples.steps,
        denoise=samples.denoise,
        cfg=1.0,
        options=StreamOptions(step_rule=StepRule(samples.few_step_model)),
        vae=base.vae,
        depth_model=base.depth_model if config.depth else None,
    )


def _translated(spec: StreamSpec, pictures: list[Tensor]) -> Iterator[Tensor]:
    """Stream pictures, uint8 [H, W, 3], one after another."""
    translator = spec.start_translator(eight_bit=True)
    height, width = pictures[0].shape[:2]
    with spec.open((height // 8, width // 8), len(pictures)) as opened:
        translator.open(opened)
        for picture in pictures:
            yield from (copy.get().cpu() for copy in translator.push(opened, picture))
        yield from (copy.get().cpu() for copy in translator.drain(opened))

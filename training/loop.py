"""A training run, from its configuration to its motion-module file."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from live2diff_core.host.identity import weights_identity

from .base_model import BaseModel
from .config import TrainingConfig
from .curves import Meter, Point
from .ema import MovingMean
from .encoding import Encoded, Encoder
from .export import write_motion_module
from .initial import initial_motion_model
from .manifest import list_training_videos
from .processes import make_accelerator
from .samples import write_samples
from .state import RunState, load_run, save_run
from .trainee import Trainee
from .windows import Windows

STATE, MODULE = "state.safetensors", "motion_module.safetensors"


class TrainingError(RuntimeError):
    """A run cannot go on; the message says why."""


def train(
    config: TrainingConfig,
    base: BaseModel,
    accelerator: Accelerator | None = None,
    shown: Callable[[int, Point], None] | None = None,
) -> Path:
    """Train a motion module, or go on where a run of the same options stopped.

    Args:
        config: the options.
        base: the models, which stay as they are.
        accelerator: from `make_accelerator`.
        shown: called with (steps made, point) for every point of the curves.

    Returns:
        The motion-module file.

    Raises:
        ConfigError, ManifestError: the options or videos cannot be used.
        TrainingError: the loss became NaN or infinite.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    accelerator = accelerator or make_accelerator(config)
    config.accumulation(accelerator.num_processes)
    Path(config.output).mkdir(parents=True, exist_ok=True)
    windows, content = _prepare(config, base, accelerator)
    run = Run(config, base, accelerator, windows, content)
    accelerator.init_trackers("curves")
    try:
        return run.finish(shown)
    finally:
        accelerator.end_training()


def _prepare(
    config: TrainingConfig, base: BaseModel, accelerator: Accelerator
) -> tuple[Windows, str]:
    """Encode what is missing, side by side; return the samples and the name of their content."""
    listed = list_training_videos(Path(config.videos), config.caption)
    share = (accelerator.process_index, accelerator.num_processes)
    encoder = Encoder(base, config, share)
    encoder.encode(listed)
    accelerator.wait_for_everyone()
    videos = encoder.usable(listed)
    return Windows(config, videos, encoder.text("")), _content(videos, base.model)


def _content(videos: Sequence[Encoded], model: Any) -> str:
    """Name what the options of a run name by path only."""
    text = "\n".join(video.key for video in videos)
    unet = weights_identity(model.model.diffusion_model, "diffusion_model.", model.backup)
    return f"{len(videos)} videos {hashlib.sha256(text.encode()).hexdigest()[:16]}, UNet {unet}"


class Run:
    """The weights of a run, and how a step changes them.

    Args:
        config, base, accelerator: see `train`.
        windows: the samples.
        content: name of the videos' content.

    Attributes:
        step: steps made.
        motion: the motion module.
    """

    def __init__(
        self,
        config: TrainingConfig,
        base: BaseModel,
        accelerator: Accelerator,
        windows: Windows,
        content: str,
    ) -> None:
        """Make the weights, or restore them."""
        self._config, self._base, self._accelerator = config, base, accelerator
        self._windows, self._folder = windows, Path(config.output)
        self.motion = initial_motion_model(config, base.model).to(accelerator.device)
        trainee = Trainee(config, base.model, self.motion)
        self._window_model = trainee.window_model
        self._parameters = dict(self.motion.named_parameters())
        self._optimizer = make_optimizer(config, list(self._parameters.values()))
        self._mean = None
        if config.ema_decay:
            self._mean = MovingMean(self._parameters, config.ema_decay)
        mean = self._mean.values if self._mean else {}
        self._state = RunState(self._parameters, mean, self._optimizer)
        self._identity = {**config.identity(), "content": content}
        self.step = load_run(self._folder / STATE, self._state, self._identity)
        if self.step:
            logging.info("Going on after step %d.", self.step)
        if accelerator.is_main_process:
            # What a kill left half written.
            for part in self._folder.glob("*.part"):
                part.unlink(missing_ok=True)
        self._trainee = accelerator.prepare(trainee)
        self._accumulation = config.accumulation(accelerator.num_processes)

    def finish(self, shown: Callable[[int, Point], None] | None = None) -> Path:
        """Make the steps that are left, and write what belongs to them."""
        config = self._config
        self._window_model.load()
        first = self._accelerator.is_main_process
        bar = tqdm(
            total=config.steps,
            initial=self.step,
            unit="step",
            disable=None if first else True,
        )
        meter = Meter(self._accelerator)
        while self.step < config.steps:
            meter.add(*self._advance())
            bar.update()
            last = self.step == config.steps
            saved = self.step % config.save_every == 0 or last
            # Looked at before it is saved, so that every state is whole.
            if self.step % config.log_every == 0 or saved:
                self._show(meter.read(config.learning_rate_at(self.step - 1)), bar, shown)
            if saved:
                self._save()
            if config.samples.every and self.step % config.samples.every == 0:
                self._sample()
        bar.close()
        self._accelerator.wait_for_everyone()
        return self._export(self._folder / MODULE)

    def numbers(self, accumulated: int) -> list[int]:
        """List the samples of one pass of this process in the current step.

        They depend on the effective batch alone, however many devices and passes it takes.
        """
        size, processes = self._config.batch_size, self._accelerator.num_processes
        passes = self.step * self._accumulation + accumulated
        first = (passes * processes + self._accelerator.process_index) * size
        return list(range(first, first + size))

    def _advance(self) -> tuple[Tensor, Tensor]:
        """Make one step; return its loss and gradient norm, 0-d tensors."""
        config, accelerator = self._config, self._accelerator
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        total = torch.zeros((), device=accelerator.device)
        for index in range(self._accumulation):
            batch = self._windows.batch(self.numbers(index)).to(accelerator.device)
            last = index == self._accumulation - 1
            with nullcontext() if last else accelerator.no_sync(self._trainee):
                loss = self._trainee(batch) / self._accumulation
                accelerator.backward(loss)
            total += loss.detach()
        limit = config.max_gradient_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), limit)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self._mean is not None:
            self._mean.update(self._parameters, self.step)
        return total, norm

    def _show(self, point: Point, bar: Any, shown: Callable[[int, Point], None] | None) -> None:
        """Add a point to the curves.

        Raises:
            TrainingError: the loss is NaN or infinite; the last state is from before.
        """
        if not math.isfinite(point.loss):
            raise TrainingError(
                f"The loss is {point.loss} around step {self.step}. The last state that was saved "
                "is whole. Lower learning_rate, set max_gradient_norm: 1, or dtype: float32."
            )
        self._accelerator.log(vars(point), step=self.step)
        bar.set_postfix(loss=f"{point.loss:.4f}")
        if bar.disable and self._accelerator.is_main_process:
            text = "Step %d of %d: loss %.4f, %.2f s per step."
            logging.info(text, self.step, self._config.steps, point.loss, point.seconds)
        if shown is not None:
            shown(self.step, point)

    def _save(self) -> None:
        if self._accelerator.is_main_process:
            save_run(self._folder / STATE, self._state, self.step, self._identity)
            self._export(self._folder / MODULE)

    def _export(self, path: Path) -> Path:
        if self._accelerator.is_main_process:
            dtype = getattr(torch, self._config.export_dtype)
            write_motion_module(path, self.motion, self._mean.values if self._mean else {}, dtype)
        return path

    def _sample(self) -> None:
        """Translate the sample videos with the motion module as it is now."""
        if self._accelerator.is_main_process:
            self._export(self._folder / MODULE)
            write_samples(self._config, self._base, self._folder / MODULE, self.step)
        self._accelerator.wait_for_everyone()
        self._window_model.load()


def make_optimizer(config: TrainingConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Make Adam or AdamW, as one kernel where torch has it."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )

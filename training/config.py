"""The options of a training run, their defaults and their limits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from math import cos, pi
from pathlib import Path
from typing import Any

from live2diff_core.live2diff.window import AttentionMode, AttentionWindow

from .option_checks import ConfigError, check_kind, require, texts

LOSSES = ("eps", "eps_l1", "x0", "min_snr")
OPTIMIZERS = ("adam", "adamw")
DECAYS = ("none", "cosine")
DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu")
TIMESTEPS = 1000

# What a resumed run may change: how long it runs, what it writes on the way, what changes results
# by rounding alone, and the names of what is recognised by its content.
_FREE = (
    *("output", "cache", "steps", "threads", "device", "save_every", "log_every", "samples"),
    *("batch_size", "gradient_checkpointing", "export_dtype"),
    *("checkpoint", "depth_model", "videos", "caption"),
)


@dataclass(frozen=True)
class SampleConfig:
    """Videos that are translated now and then, to look at.

    Attributes:
        every: steps between samples; 0 for none.
        videos: files to translate.
        prompts: one for each video, or one for all.
        frames: most frames of each.
        steps, denoise: inference steps and strength, as in Stream Video.
        few_step_model: "lcm" or "x0", as in Stream Options.
    """

    every: int = 0
    videos: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ("",)
    frames: int = 48
    steps: int = 4
    denoise: float = 0.5
    few_step_model: str = "lcm"

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("videos", "prompts"):
            object.__setattr__(self, name, texts(f"samples.{name}", getattr(self, name)))
        require(self.every >= 0, "samples.every", self.every, "0 (none) or a number of steps")
        if not self.every:
            return
        require(bool(self.videos), "samples.videos", "empty", "files of videos, or samples.every 0")
        matching = len(self.prompts) in (1, len(self.videos))
        require(matching, "samples.prompts", len(self.prompts), "one text, or one for each video")
        require(self.frames > 0, "samples.frames", self.frames, "at least 1")
        require(self.steps > 0, "samples.steps", self.steps, "at least 1")
        require(0 < self.denoise <= 1, "samples.denoise", self.denoise, "above 0, at most 1")
        known = self.few_step_model in ("lcm", "x0")
        require(known, "samples.few_step_model", self.few_step_model, "lcm or x0")


@dataclass(frozen=True)
class TrainingConfig:
    """All options of a run.

    Attributes:
        checkpoint: an SD1.5 checkpoint, or "sample" for the pack's own small model.
        videos: a folder of videos, or a manifest (.jsonl) of them.
        output: folder for the motion module, its curves, samples and the state of the run.
        caption: the prompt of videos that have none.
        depth_model: MiDaS DPT-hybrid; needed with `depth` where the manifest names no depth videos.
        cache: folder for latents and texts, which many runs may share; by default in `output`.
        width, height: pixels to which videos are scaled and cropped; multiples of 8.
        max_frames: most frames of each video; null for all.
        frame_stride: frames from one frame of a window to the next.
        start_from: a motion module to start from; null to start from nothing.
        depth: train the depth mapping network, too (stage 2).
        attention_mode, window_size, warmup_frames: see `AttentionWindow`.
        positions: length of the position table of a module that starts from nothing.
        steps: steps of the optimizer.
        batch_size: windows per device and pass.
        effective_batch: windows per step, over all devices and passes.
        optimizer, learning_rate, betas, weight_decay: "adam" or "adamw".
        lr_warmup_steps: steps over which the learning rate rises from 0.
        lr_decay: "none", or "cosine" to fall to 0 at the last step.
        max_gradient_norm: gradients are scaled down to it; null for never.
        ema_decay: of the mean of the weights, which is what is exported; 0 for none.
        loss: "eps", "eps_l1", "x0" or "min_snr"; see `window_loss`.
        timesteps: the timesteps to train, 0..999; null for all.
        source_probability: how often a pair is noised from its source; or a list, one for each of
            `timesteps`. In a stream the first step starts from the source, the others do not.
        prompt_dropout: how often the prompt is left out.
        gradient_checkpointing: compute blocks again in the backward pass, to save memory.
        dtype: in which the UNet computes; weights that are trained stay float32.
        export_dtype: of the motion-module file.
        seed: of everything random.
        device: "auto" or "cpu".
        threads: of the CPU; null as torch chooses.
        save_every: steps between states of the run.
        log_every: steps between points of the curves.
        samples: see `SampleConfig`.
    """

    checkpoint: str
    videos: str
    output: str
    caption: str | None = None
    depth_model: str | None = None
    cache: str | None = None
    width: int = 256
    height: int = 256
    max_frames: int | None = None
    frame_stride: int = 1
    start_from: str | None = None
    depth: bool = False
    attention_mode: str = AttentionMode.CAUSAL_WARMUP.value
    window_size: int = 16
    warmup_frames: int = 8
    positions: int = 24
    steps: int = 3000
    batch_size: int = 4
    effective_batch: int = 1024
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    lr_warmup_steps: int = 0
    lr_decay: str = "none"
    max_gradient_norm: float | None = None
    ema_decay: float = 0.0
    loss: str = "eps"
    timesteps: tuple[int, ...] | None = None
    source_probability: float | tuple[float, ...] = 1.0
    prompt_dropout: float = 0.0
    gradient_checkpointing: bool = True
    dtype: str = "bfloat16"
    export_dtype: str = "float16"
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    save_every: int = 100
    log_every: int = 10
    samples: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        """Check all values that can be checked without opening a file.

        Raises:
            ConfigError: a value is of another kind, or out of range.
        """
        for each in fields(self):
            if each.name == "source_probability" and isinstance(self.source_probability, list):
                continue
            check_kind(each.name, getattr(self, each.name), str(each.type))
        if isinstance(self.source_probability, list):
            object.__setattr__(self, "source_probability", tuple(self.source_probability))
        if self.timesteps is not None:
            object.__setattr__(self, "timesteps", tuple(self.timesteps))
        object.__setattr__(self, "betas", tuple(self.betas))
        self._check_choices()
        self._check_numbers()
        self._check_window()

    def _check_choices(self) -> None:
        modes = tuple(mode.value for mode in AttentionMode)
        for name, allowed in (
            ("attention_mode", modes),
            ("loss", LOSSES),
            ("optimizer", OPTIMIZERS),
            ("lr_decay", DECAYS),
            ("dtype", DTYPES[:2]),
            ("export_dtype", DTYPES),
            ("device", DEVICES),
        ):
            value = getattr(self, name)
            require(value in allowed, name, value, f"one of {', '.join(allowed)}")

    def _check_numbers(self) -> None:
        whole = "frame_stride steps batch_size effective_batch save_every log_every"
        for name in (*whole.split(), *(n for n in ("max_frames", "threads") if getattr(self, n))):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        for name in ("width", "height"):
            side = getattr(self, name)
            require(side >= 8 and side % 8 == 0, name, side, "a multiple of 8")
        require(0 <= self.prompt_dropout <= 1, "prompt_dropout", self.prompt_dropout, "0 to 1")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        require(self.lr_warmup_steps >= 0, "lr_warmup_steps", self.lr_warmup_steps, "at least 0")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "from 0 (none) to below 1")
        betas = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(betas, "betas", self.betas, "two numbers from 0 to below 1")
        norm = self.max_gradient_norm
        require(norm is None or norm > 0, "max_gradient_norm", norm, "above 0, or null")
        if self.timesteps is not None:
            right = self.timesteps and all(0 <= t < TIMESTEPS for t in self.timesteps)
            require(
                bool(right), "timesteps", list(self.timesteps), "numbers from 0 to 999, or null"
            )
        self._check_source()

    def _check_source(self) -> None:
        given, count = self.source_probability, len(self.timesteps or ())
        each = given if isinstance(given, tuple) else (given,)
        right = all(isinstance(p, int | float) and 0 <= p <= 1 for p in each)
        right = right and (not isinstance(given, tuple) or len(given) == count)
        allowed = f"from 0 to 1, or a list of such with one for each of the {count} timesteps"
        require(right, "source_probability", given, allowed)

    def _check_window(self) -> None:
        try:
            window = self.window
            window.check_positions(self.positions)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def window(self) -> AttentionWindow:
        """The mask that is trained."""
        return AttentionWindow(
            self.window_size, self.warmup_frames, AttentionMode(self.attention_mode)
        )

    @property
    def frames_needed(self) -> int:
        """Frames that a window spans in its video."""
        return (self.window_size - 1) * self.frame_stride + 1

    @property
    def cache_folder(self) -> Path:
        """Where latents and texts are kept."""
        return Path(self.cache) if self.cache else Path(self.output) / "cache"

    def accumulation(self, processes: int) -> int:
        """Return the number of passes per step of each of `processes` devices.

        Raises:
            ConfigError: the effective batch cannot be divided.
        """
        together = self.batch_size * processes
        if self.effective_batch % together:
            raise ConfigError(
                f"effective_batch is {self.effective_batch}, which {processes} device(s) with "
                f"batch_size {self.batch_size} cannot make: it must be a multiple of {together}."
            )
        return self.effective_batch // together

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of the step that follows `step` earlier ones."""
        rise = min(1.0, (step + 1) / (self.lr_warmup_steps + 1))
        fall = 0.5 * (1 + cos(pi * step / self.steps)) if self.lr_decay == "cosine" else 1.0
        return self.learning_rate * rise * fall

    def identity(self) -> dict[str, Any]:
        """Name the options that a resumed run must share: JSON values by name."""
        values = asdict(self)
        if self.lr_decay != "none":
            values["lr_decay"] = f"{self.lr_decay} over {self.steps} steps"
        kept = {name: value for name, value in values.items() if name not in _FREE}
        return dict(json.loads(json.dumps(kept)))

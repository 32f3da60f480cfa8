"""The specification of a stream, shared by all nodes that run one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..depth.model import DepthModel
from ..host.checks import check_depth, check_model
from ..host.control_hints import HintFrames
from ..host.identity import model_identity, prompt_identity, prompt_layout, weights_identity
from ..host.memory_need import Companion
from ..host.model import HostModel
from ..host.sd15 import host_schedule
from ..host.vae import FrameVAE, check_vae
from ..stream.guidance import Guidance, GuidanceMode
from ..stream.memory import start_memories
from ..stream.noise import FrameNoise
from ..stream.schedule import ConsistencySchedule, StepRule
from ..stream.session import StreamSession
from ..stream.similar_frames import SimilarFrameFilter, SkipRule
from .opened import OpenStream
from .translator import FrameTranslator


@dataclass(frozen=True)
class StreamOptions:
    """Options of how a stream is denoised, beside its noise levels.

    Attributes:
        guidance_mode, delta: see `Guidance`.
        shared_noise: see `FrameNoise`.
        step_rule: see `StepRule`.
    """

    guidance_mode: GuidanceMode = GuidanceMode.FULL
    delta: float = 1.0
    shared_noise: bool = False
    step_rule: StepRule = StepRule.LCM


@dataclass(frozen=True)
class StreamSpec:
    """The models, prompts and parameters of a stream.

    Attributes:
        model: ComfyUI's ModelPatcher, SD1.5, with its memories.
        positive, negative: ComfyUI conditionings.
        schedule: the T noise levels.
        guidance: scale and mode.
        seed: seed of the noise and of random decisions.
        shared_noise: one noise for all frames.
        skip_rule: which similar frames are skipped; None skips none.
        vae: ComfyUI's VAE; None for a stream of latents.
        depth_model: estimates depth; None streams without depth, or with depth latents.
        depth_latents: whether every frame comes with the latent of its depth.

    Raises:
        UnsupportedModelError: the MODEL cannot read depth, or the VAE is not for SD1.5.
    """

    model: Any
    positive: Any
    negative: Any
    schedule: ConsistencySchedule
    guidance: Guidance
    seed: int
    shared_noise: bool = False
    skip_rule: SkipRule | None = None
    vae: Any = None
    depth_model: DepthModel | None = None
    depth_latents: bool = False

    def __post_init__(self) -> None:
        """Check the MODEL for depth, and the VAE, before any model is loaded."""
        if self.depth_model is not None or self.depth_latents:
            check_depth(self.model)
        if self.vae is not None:
            check_vae(self.vae)

    @classmethod
    def from_inputs(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        seed: int,
        steps: int,
        denoise: float,
        cfg: float,
        sigmas: Tensor | None = None,
        options: StreamOptions | None = None,
        frame_filter: SkipRule | None = None,
        vae: Any = None,
        depth_model: DepthModel | None = None,
        depth_latents: bool = False,
    ) -> StreamSpec:
        """Make the specification from the inputs that all stream nodes share.

        Raises:
            ValueError: from `host_schedule`; UnsupportedModelError as above, or from `check_model`.
        """
        # First, because other kinds of sampling have no noise levels for the schedule.
        check_model(model)
        options = options or StreamOptions()
        return cls(
            model,
            positive,
            negative,
            schedule=host_schedule(model, steps, denoise, sigmas, options.step_rule),
            guidance=Guidance(cfg, options.guidance_mode, options.delta),
            seed=seed,
            shared_noise=options.shared_noise,
            skip_rule=frame_filter,
            vae=vae,
            depth_model=depth_model,
            depth_latents=depth_latents,
        )

    def open(
        self,
        latent_size: tuple[int, int],
        frames: int | None,
        hints: HintFrames | None = None,
        held_bytes: int = 0,
    ) -> OpenStream:
        """Return the models as a context manager, which loads them on entry.

        Args:
            latent_size: (h, w).
            frames: frames that batches of masks and prompts must match; None if unknown.
            hints: the frames that the ControlNets' images belong to; by default the stream's.
            held_bytes: bytes that the stream's memories hold already.

        Raises:
            ValueError: a stream cannot run the inputs, see `HostModel`.
        """
        companions: dict[str, Companion] = {}
        vae = None if self.vae is None else FrameVAE(self.vae)
        if vae is not None:
            height, width = latent_size[0] * 8, latent_size[1] * 8
            companions["vae"] = Companion(vae.patcher, vae.working_bytes(height, width))
        if self.depth_model is not None:
            depth = self.depth_model
            companions["depth"] = Companion(depth.patcher, depth.working_bytes)
        model = HostModel(
            self.model,
            self.positive,
            self.negative,
            self.guidance,
            self.schedule,
            latent_size,
            frames,
            companions=companions,
            held_bytes=held_bytes,
            hints=hints,
        )
        return OpenStream(model, vae, self.depth_model)

    def start(self) -> StreamSession:
        """Start a stream of latents."""
        steps = self.guidance.steps(len(self.schedule))
        return StreamSession(
            self.schedule,
            FrameNoise(self.seed, self.shared_noise),
            start_memories(self.model, steps, self.seed),
            self.guidance,
        )

    def start_translator(self, eight_bit: bool = False) -> FrameTranslator:
        """Start a stream of pictures, which come out as uint8 or as float32 in 0..1."""
        similar = SimilarFrameFilter(self.seed, self.skip_rule)
        return FrameTranslator(self.start(), similar, eight_bit)

    @property
    def computes_in(self) -> str:
        """Dtype in which the UNet computes."""
        base = self.model.model
        return str(base.manual_cast_dtype or base.get_dtype())

    def identity(self) -> dict[str, Any]:
        """Name what cannot change without starting the stream over: JSON values by title."""
        depth = "latents" if self.depth_latents else "no"
        if self.depth_model is not None:
            depth = f"yes {weights_identity(self.depth_model.patcher.model)}"
        return {
            **model_identity(self.model),
            "timesteps": " ".join(f"{step:g}" for step in self.schedule.timesteps),
            "noise levels": " ".join(f"{sigma:.4g}" for sigma in self.schedule.sigmas),
            "seed": self.seed,
            "guidance": str(self.guidance),
            "noise": "same for all frames" if self.shared_noise else "fresh per frame",
            "few-step model": "lcm" if any(self.schedule.c_skip) else "x0",
            "depth": depth,
        }

    def layout_identity(self) -> dict[str, str]:
        """Describe where the prompts apply, which determines the caches' layout."""
        titles = {"positive": "areas of the prompt", "negative": "areas of the negative prompt"}
        return {titles[kind]: prompt_layout(conds) for kind, conds in self.prompts.items()}

    def content_identity(self) -> dict[str, Any]:
        """Name everything else that determines the result, for videos that are resumed."""
        return {
            "computes in": self.computes_in,
            **{kind: prompt_identity(c, control=True) for kind, c in self.prompts.items()},
            "vae": weights_identity(self.vae.first_stage_model),
            "sigmas": [round(sigma, 6) for sigma in self.schedule.sigmas],
            "step scalings": [round(scaling, 6) for scaling in self.schedule.c_skip],
            "skipped frames": str(self.skip_rule),
        }

    @property
    def prompts(self) -> dict[str, Any]:
        """The conditionings that guidance reads, by kind."""
        read = {"positive": self.positive}
        return {**read, "negative": self.negative} if self.guidance.uses_negative else read

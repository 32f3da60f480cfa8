"""From videos and prompts to the files of a `Cache`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from live2diff_core.depth.model import resize_depth
from live2diff_core.depth.ranges import RunningRange, normalise_running
from live2diff_core.host.identity import file_identity, weights_identity
from live2diff_core.host.vae import FrameVAE, check_vae
from live2diff_core.video.frame import VideoError
from live2diff_core.video.frame_size import FrameSizeError, plan_frame_size
from live2diff_core.video.reader import open_video

from .base_model import BaseModel
from .cache import Cache, in_batches, length
from .config import TrainingConfig
from .manifest import TrainingVideo
from .option_checks import ConfigError

_BATCH = 8
# What may be wrong with one video, which is then left out.
_VIDEO_ERRORS = (VideoError, FrameSizeError, OSError, ValueError)


@dataclass(frozen=True)
class Encoded:
    """One video of the cache.

    Attributes:
        frames: F.
        target: file of its latents, [F, 4, h, w].
        text: file of its prompt.
        depth: file of its depth's latents; None where depth is not trained.
        source: file of the latents that are noised in its place; None for its own.
        key: name of its content, for resuming.
    """

    frames: int
    target: Path
    text: Path
    depth: Path | None
    source: Path | None

    @property
    def key(self) -> str:
        """Name of all that it consists of."""
        return " ".join(p.stem for p in (self.target, self.text, self.depth, self.source) if p)


class Encoder:
    """Encodes what is not in the cache yet. Videos that cannot be read are reported and left out.

    Args:
        base: the models.
        config: size and length of the videos, and whether depth is trained.
        share: (rank, number) of this process among those that encode side by side.
    """

    def __init__(
        self, base: BaseModel, config: TrainingConfig, share: tuple[int, int] = (0, 1)
    ) -> None:
        """Name the models, which takes no time; nothing is encoded yet."""
        check_vae(base.vae)
        self._base, self._config, self._share = base, config, share
        self._cache, self._vae = Cache(config.cache_folder), FrameVAE(base.vae)
        size = (config.width, config.height, config.max_frames)
        vae = weights_identity(base.vae.first_stage_model)
        self._settings = (vae, *size)
        self._text_model = weights_identity(base.clip.cond_stage_model)
        self._depth_model = None
        if base.depth_model is not None:
            self._depth_model = weights_identity(base.depth_model.patcher.model)
        self.failed: dict[Path, str] = {}

    @torch.no_grad()
    def encode(self, videos: Sequence[TrainingVideo]) -> None:
        """Encode this process's share of what is missing.

        Raises:
            ConfigError: depth is trained, but there is neither a depth model nor a depth video.
        """
        work = self._work(videos)
        mine = [work[path] for path in sorted(work)][self._share[0] :: self._share[1]]
        missing = [job for job in mine if not job[0].is_file()]
        for path, compute, origin in tqdm(missing, "encode", unit="file", disable=None):
            try:
                self._cache.keep(path, compute, {"of": str(origin)})
            except _VIDEO_ERRORS as error:
                self.failed[origin] = str(error)

    def usable(self, videos: Sequence[TrainingVideo]) -> list[Encoded]:
        """List the videos that are whole and long enough, once all processes have encoded.

        Raises:
            ConfigError: there are none.
        """
        found = []
        for video in videos:
            encoded = self._encoded(video)
            problem = self._problem(video, encoded)
            if problem is None and encoded is not None:
                found.append(encoded)
            else:
                logging.warning("Left out: %s: %s", video.video, problem)
        if not found:
            raise ConfigError(
                f"None of the {len(videos)} videos can be used: the warnings above say why."
            )
        if len(found) < len(videos):
            logging.warning("%d of %d videos are left out.", len(videos) - len(found), len(videos))
        return found

    def text(self, prompt: str) -> Path:
        """Return the file of a prompt."""
        return self._cache.path("text", self._text_model, prompt)

    def _work(
        self, videos: Sequence[TrainingVideo]
    ) -> dict[Path, tuple[Path, Callable[[], Tensor], Path]]:
        """List every file to make, once: how, and of which video."""
        jobs: dict[Path, tuple[Path, Callable[[], Tensor], Path]] = {}

        def add(path: Path, compute: Callable[[], Tensor], origin: Path) -> None:
            jobs.setdefault(path, (path, compute, origin))

        for video in videos:
            for each in video.files:
                if each.exists():
                    add(self._latents(each), self._pictures_of(each), each)
            if self._config.depth and video.depth is None and video.video.exists():
                add(self._depth(video.video), self._depth_of(video.video), video.video)
        for prompt in {"", *(video.prompt for video in videos)}:
            add(self.text(prompt), self._text_of(prompt), Path("text"))
        return jobs

    def _latents(self, video: Path) -> Path:
        return self._cache.path("latents", file_identity(str(video)), *self._settings)

    def _depth(self, video: Path) -> Path:
        if self._depth_model is None:
            raise ConfigError(
                f"`depth` is on, but {video.name} has no depth video in the manifest, and there is "
                "no depth_model to estimate it."
            )
        settings = (self._depth_model, *self._settings)
        return self._cache.path("depth", file_identity(str(video)), *settings)

    def _encoded(self, video: TrainingVideo) -> Encoded | None:
        if not all(path.exists() for path in video.files):
            return None
        depth = None
        if self._config.depth:
            depth = self._latents(video.depth) if video.depth else self._depth(video.video)
        target = self._latents(video.video)
        source = self._latents(video.source) if video.source else None
        frames = length(target) if target.is_file() else 0
        return Encoded(frames, target, self.text(video.prompt), depth, source)

    def _problem(self, video: TrainingVideo, encoded: Encoded | None) -> str | None:
        """Say why a video cannot be used; None if it can."""
        missing = [path for path in video.files if not path.exists()]
        if missing:
            return f"there is no {missing[0]}."
        assert encoded is not None
        parts = {"video": encoded.target, "depth": encoded.depth, "source": encoded.source}
        for name, path in parts.items():
            if path is not None and not path.is_file():
                origin = getattr(video, name) or video.video
                return self.failed.get(origin, f"its {name} could not be encoded.")
            if path is not None and length(path) != encoded.frames:
                return f"its {name} has {length(path)} frames, the video {encoded.frames}."
        if encoded.frames < self._config.frames_needed:
            return (
                f"it has {encoded.frames} frames; a window spans {self._config.frames_needed} "
                "(window_size and frame_stride)."
            )
        return None

    def _pictures_of(self, video: Path) -> Callable[[], Tensor]:
        def compute() -> Tensor:
            self._load(self._base.vae.patcher)
            return torch.cat([self._latent(p) for p in self._pictures(video)])

        return compute

    def _depth_of(self, video: Path) -> Callable[[], Tensor]:
        """Estimate depth as a stream does: by the running range since the first frame."""

        def compute() -> Tensor:
            depth_model, state, found = self._base.depth_model, RunningRange(), []
            for pictures in self._pictures(video):
                self._load(depth_model.patcher)
                grey, state = normalise_running(depth_model.infer(pictures), state)
                grey = resize_depth(grey, *pictures.shape[1:3])
                self._load(self._base.vae.patcher)
                found.append(self._latent(grey[..., None].expand(-1, -1, -1, 3)))
            return torch.cat(found)

        return compute

    def _text_of(self, prompt: str) -> Callable[[], Tensor]:
        clip = self._base.clip

        def compute() -> Tensor:
            return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0]

        return compute

    def _latent(self, pictures: Tensor) -> Tensor:
        """Encode [F, H, W, 3] in 0..1 to latents in the UNet's scale; on the CPU, to save VRAM."""
        latents = self._base.model.model.process_latent_in(self._vae.encode(pictures))
        if not latents.isfinite().all():
            raise ValueError("its latents are NaN or infinite; start with --fp32-vae.")
        return latents.to("cpu", torch.float16)

    def _pictures(self, video: Path) -> Iterator[Tensor]:
        """Yield pictures [F, H, W, 3] in 0..1 of the configured size, some at a time."""
        config = self._config
        with open_video(str(video)) as reader:
            info = reader.info
            plan = plan_frame_size(info.width, info.height, "fill", config.width, config.height)
            limit = config.max_frames
            images = (plan.apply(f.image) for f in reader if limit is None or f.index < limit)
            for batch in in_batches(images, _BATCH):
                yield torch.from_numpy(np.stack(batch)).float() / 255.0
        for warning in reader.warnings:
            logging.warning("%s: %s", video.name, warning)

    @staticmethod
    def _load(patcher: object) -> None:
        comfy.model_management.load_models_gpu([patcher])

"""Streams a clip of latents: all frames are known, and as many come out as go in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..stream.similar_frames import SimilarFrameFilter
from ..stream.transfer import HostCopy
from .finite import FiniteWatch
from .notices import Notices
from .unreached import tell_of_unreached_prompts

if TYPE_CHECKING:
    from .opened import OpenStream
    from .spec import StreamSpec


class LatentError(ValueError):
    """A stream cannot take these latents; the message names the expected and the given ones."""


def frame_latents(latent: Mapping[str, Any], name: str = "frames") -> Tensor:
    """Return the samples of a ComfyUI LATENT: [F, 4, h, w], finite, F at least 1.

    Raises:
        LatentError: the latents are not of this kind.
    """
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim != 4 or samples.shape[1] != 4:
        raise LatentError(
            f"{name}: expected SD1.5 latents [frames, 4, height/8, width/8], got "
            f"{list(samples.shape)}. Encode the frames with an SD1.5 VAE (or TAESD)."
        )
    if samples.numel() == 0:
        raise LatentError(f"{name}: there are no frames ({list(samples.shape)}).")
    bad = [i for i, frame in enumerate(samples) if not torch.isfinite(frame).all()]
    if bad:
        raise LatentError(
            f"{name}: frame {bad[0]} (of {len(bad)} such frames) holds NaN or infinite values. "
            "A VAE that overflows in float16 does this: start ComfyUI with --fp32-vae, or look at "
            "the node that made these latents."
        )
    if "noise_mask" in latent:
        raise LatentError(f"{name}: these latents carry a noise mask; streams do not inpaint.")
    return samples


def matching_depth(depth: Mapping[str, Any], frames: Tensor) -> Tensor:
    """Return the samples of a depth LATENT, which must match `frames` one to one.

    Raises:
        LatentError: the depth is no latent, or differs from the frames in number or size.
    """
    samples = frame_latents(depth, "depth")
    if len(samples) != len(frames):
        raise LatentError(
            f"depth: {len(samples)} depth latents came for {len(frames)} frames. Estimate depth "
            "from the same images that are encoded as frames."
        )
    if samples.shape != frames.shape:
        raise LatentError(
            f"depth: the depth latents are {_pixels(samples)} pixels, the frames "
            f"{_pixels(frames)}. Resize both alike before encoding."
        )
    return samples


def _pixels(samples: Tensor) -> str:
    return f"{samples.shape[3] * 8} x {samples.shape[2] * 8}"


def translate_clip(
    spec: StreamSpec,
    opened: OpenStream,
    latents: Tensor,
    depth: Tensor | None,
    notices: Notices | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Stream a clip and yield x0 of each finished frame, [4, h, w], in order, with its fault.

    Args:
        spec: the stream's specification.
        opened: its models.
        latents, depth: [F, 4, h, w] as the VAE returns them; depth may be None.
        notices: takes the warnings.
    """
    session, model = spec.start(), opened.model
    session.open(model)
    # Without pictures, similar frames are found by their latents.
    similar = SimilarFrameFilter(spec.seed, spec.skip_rule)
    # A LATENT lies on the CPU unless the host keeps everything on a GPU (--gpu-only).
    compared = latents if similar.rule is None else latents.to("cpu")

    for index, latent in enumerate(latents):
        if session.can_repeat(model) and similar.skips(index, compared[index]):
            finished = session.repeat(model)
        else:
            hint = None if depth is None else model.from_latent(depth[index])
            finished = session.push(model, model.from_latent(latent), hint)
            similar.translated(compared[index])
        yield from zip(finished, session.faults, strict=True)
    tell_of_unreached_prompts(session, model, notices or Notices())
    for x0 in session.drain(model):
        yield x0, session.faults[0]


def write_frames(
    finished: Iterable[tuple[Tensor, Tensor]],
    output: Tensor,
    convert: Callable[[Tensor], Tensor],
    shown: Callable[[int, Tensor], None],
    notices: Notices | None = None,
) -> None:
    """Write finished frames into `output`; each is waited for only when the next one is queued.

    Args:
        finished: x0 of the frames, [C, h, w] each, with their faults.
        output: [F, C, h, w].
        convert: from the model's scale to that of `output`.
        shown: called with (frames done, x0 of the last one on the CPU).
        notices: told of frames that were lost as NaN or infinite.

    Raises:
        NotFiniteError: too many frames in a row were lost.
    """
    watch, waiting = FiniteWatch(notices or Notices()), None

    def arrive(index: int, copy: HostCopy) -> None:
        watch.look(index, copy)
        output[index] = convert(copy.get())
        shown(index + 1, copy.get())

    copy, last = None, None
    for index, (x0, fault) in enumerate(finished):
        if copy is None or x0 is not last:
            copy, last = HostCopy(x0, fault=fault), x0
        if waiting is not None:
            arrive(*waiting)
        waiting = (index, copy)
    if waiting is not None:
        arrive(*waiting)
    watch.report()

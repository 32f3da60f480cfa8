"""The texts of a chunk, from ComfyUI's conditionings."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..stream.prompt_track import KEY

# What a conditioning may carry that this model does not know.
_UNKNOWN = ("control", "area", "mask", "gligen", "reference_latents")


class TextError(ValueError):
    """A conditioning cannot be used; the message says which one can."""


def check_text(conds: Any, tokens: int, width: int, what: str) -> None:
    """Refuse a conditioning that is not one text of the right encoder.

    Args:
        conds: [[tensor, {...}], ...].
        tokens, width: of the model's texts.
        what: the input, for the message.

    Raises:
        TextError: it is none.
    """
    if len(conds) != 1:
        raise TextError(
            f"The {what} has {len(conds)} parts, and this model takes one text. Do without "
            "'Conditioning (Combine)'; for other words later in the video use 'Prompt Schedule'."
        )
    text, extra = conds[0]
    if text.ndim != 3 or text.shape[2] != width or text.shape[1] % tokens:
        raise TextError(
            f"The {what} is a text of {list(text.shape)}, and this model needs [1, {tokens}, "
            f"{width}]. Encode it with the CLIP that comes from the same loader (or another text "
            "encoder of Stable Diffusion 2: OpenCLIP-H), not with that of Stable Diffusion 1.5 or "
            "SDXL."
        )
    found = [name for name in _UNKNOWN if extra.get(name) is not None]
    if found:
        raise TextError(f"The {what} carries {', '.join(found)}, which this model does not know.")


def text_of_frame(conds: Any, frame: int, tokens: int) -> Tensor:
    """Return the text of a frame, [1, tokens, C]: its first `tokens` tokens count."""
    text, extra = conds[0]
    track = extra.get(KEY)
    return (text if track is None else track.text(frame))[:, :tokens]


def is_cut_off(conds: Any, tokens: int) -> bool:
    """Return whether a text has more tokens than count."""
    text, extra = conds[0]
    track = extra.get(KEY)
    texts = (text,) if track is None else track.texts
    # Shorter texts of a schedule are repeated to the length of the longest.
    return any(t.shape[1] > tokens and not _repeats(t, tokens) for t in texts)


def unreached(conds: Any, frames: int) -> list[int]:
    """List the frames at which texts of a schedule begin that a video of `frames` never shows."""
    track = conds[0][1].get(KEY)
    return [] if track is None else track.timeline.unreached(frames)


def _repeats(text: Tensor, tokens: int) -> bool:
    return bool((text == text[:, :tokens].repeat(1, text.shape[1] // tokens, 1)).all())

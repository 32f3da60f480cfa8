"""APM, the appearance preservation module: the look of an anchor frame in every chunk.

Paper: Henschel et al., "StreamingT2V", section 4.2, equation 6. The anchor's CLIP embedding becomes
16 tokens. In each spatial cross attention a convolution mixes them with the 77 tokens of the text:
the tokens are its channels, and it slides along the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

IMAGE_SIZE = 224
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageTokens(nn.Module):
    """The MLP that makes tokens of an image embedding.

    Args:
        embedding, inner: widths of its input and its hidden layer.
        tokens, context: how many tokens it makes, and their width.
    """

    def __init__(self, embedding: int, inner: int, tokens: int, context: int) -> None:
        """Make the layers."""
        super().__init__()
        self._tokens = tokens
        self.context_embedding = nn.Sequential(
            nn.Linear(embedding, inner), nn.SiLU(), nn.Linear(inner, tokens * context)
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """From embeddings [N, E] of N pictures to tokens [N, tokens, context]."""
        return self.context_embedding(embeddings).unflatten(-1, (self._tokens, -1))


def add_mixer(attention: Attention, text: int, tokens: int, context: int) -> None:
    """Give a cross attention the layers that mix `text` text tokens with `tokens` image tokens."""
    attention.alpha = nn.Parameter(torch.empty(()))
    attention.conv = nn.Conv1d(text + tokens, text, kernel_size=3, padding=1)
    attention.conv_ln = nn.LayerNorm(context)


def mixed_context(attention: Any, text: Tensor, tokens: Tensor) -> Tensor:
    """Return what an attention reads: text + SiLU(alpha) * mixed (equation 6).

    Args:
        attention: as `add_mixer` left it.
        text: [N, 77, C].
        tokens: [N, 16, C], of the anchor.

    Returns:
        [N, 77, C].
    """
    mixed = attention.conv_ln(attention.conv(torch.cat([text, tokens], dim=1)))
    return text + silu(attention.alpha) * mixed


class MixedContext(AttnProcessor2_0):
    """Computes an attention with the context that a call names for it, if it names one.

    All attentions of a UNet have such a processor, since diffusers hands a call's arguments to all
    of them.

    Args:
        name: the attention's in the call's contexts; None where it takes none.
    """

    def __init__(self, name: str | None = None) -> None:
        """Store the name."""
        super().__init__()
        self._name = name

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        contexts: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Attend; `contexts` hold [N, 77, C] by name, for N rows of frames that lie together."""
        context = None if not contexts or self._name is None else contexts.get(self._name)
        if context is not None:
            frames = len(hidden_states) // len(context)
            encoder_hidden_states = context.repeat_interleave(frames, dim=0)
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def clip_pixels(pictures: Tensor) -> Tensor:
    """Prepare pictures for the CLIP encoder as the published code does.

    Bicubic to 224x224 whatever the aspect, with aligned corners and without a crop: other than the
    host's preprocessing. The Gaussian blur that the published code applies first has a width of
    0.07 pixels at 256x256 and does nothing there; larger pictures are blurred as it would.

    Args:
        pictures: [N, 3, H, W] in -1..1.

    Returns:
        [N, 3, 224, 224], normalised.
    """
    size = (IMAGE_SIZE, IMAGE_SIZE)
    resized = interpolate(_blurred(pictures), size, mode="bicubic", align_corners=True)
    mean, std = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return ((resized + 1) / 2 - mean) / std


def _blurred(pictures: Tensor) -> Tensor:
    """Blur each direction by (factor - 1) / 2 pixels, where the picture is to shrink."""
    for dim in (2, 3):
        sigma = (pictures.shape[dim] / IMAGE_SIZE - 1) / 2
        if sigma > 0:
            pictures = _blur(pictures, dim, sigma)
    return pictures


def _blur(pictures: Tensor, dim: int, sigma: float) -> Tensor:
    # As wide as two standard deviations each way, and odd.
    reach = max(int(2 * 2 * sigma), 3) // 2
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=pictures.device)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum()).to(pictures.dtype)
    shape = [1, 1, 1, 1]
    shape[dim] = len(weights)
    padding = [reach if side // 2 == 3 - dim else 0 for side in range(4)]
    padded = nn.functional.pad(pictures, padding, mode="reflect")
    channels = pictures.shape[1]
    kernel = weights.view(shape).expand(channels, *shape[1:])
    return nn.functional.conv2d(padded, kernel, groups=channels)

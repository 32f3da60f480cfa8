"""StreamingT2V's denoiser: ModelScope's UNet with the memory (CAM) and the appearance (APM).

The UNet is diffusers' own. CAM joins it by hooks that exist for one call, APM by attention
processors; modules hold weights only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import UNet3DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from .appearance import ImageTokens, MixedContext, add_mixer, mixed_context
from .memory_encoder import MemoryEncoder, Merger
from .released_file import Released, UNetSizes
from .weights import CheckpointError, fill, shape_of

LAYERS_PER_BLOCK = 2
_MERGERS, _MIDDLE_MERGER = "cross_attention_merger_down_blocks", "cross_attention_merger_mid_block"


@dataclass(frozen=True)
class ChunkCondition:
    """What the frames of one chunk are made from; it holds for all of its steps.

    Attributes:
        text: [N, 77, C] of the N rows.
        contexts: what the spatial cross attentions read, [N, 77, C] by name; empty without APM.
        memory: [F, C, h, w], features of the last pictures of the chunk before; None without CAM.
    """

    text: Tensor
    contexts: Mapping[str, Tensor]
    memory: Tensor | None


class Denoiser(nn.Module):
    """Predicts the noise of all frames of a chunk.

    Args:
        sizes: of the UNet.
        stages: channels of CAM's picture encoder.
        text, tokens: how many tokens a text and an anchor have.
        embedding, inner: widths of APM's MLP.
    """

    def __init__(
        self,
        sizes: UNetSizes,
        stages: tuple[int, ...],
        text: int,
        tokens: int,
        embedding: int,
        inner: int,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.sizes, self.text_tokens = sizes, text
        config = {
            "in_channels": sizes.latent,
            "out_channels": sizes.latent,
            "block_out_channels": sizes.channels,
            "layers_per_block": LAYERS_PER_BLOCK,
            "cross_attention_dim": sizes.context,
            "attention_head_dim": sizes.head_width,
        }
        self.base_model = _with_mergers(UNet3DConditionModel(**config), sizes.head_width)
        self.unet = MemoryEncoder(stages, **config)
        self.resampler = ImageTokens(embedding, inner, tokens, sizes.context)
        for attention in spatial_cross_attentions(self.base_model).values():
            add_mixer(attention, text, tokens, sizes.context)
        _set_processors(self.base_model)

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        return self.base_model.conv_in.weight.dtype

    @property
    def weights_device(self) -> torch.device:
        """On which its weights are; the host writes an attribute `device`."""
        return self.base_model.conv_in.weight.device

    def condition(
        self, text: Tensor, anchor: Tensor | None = None, pictures: Tensor | None = None
    ) -> ChunkCondition:
        """Prepare the calls of one chunk.

        Args:
            text: [N, 77, C] of the N rows.
            anchor: CLIP embeddings [N, E], of the anchor or of the grey picture; None without APM.
            pictures: [F, 3, 8h, 8w] in -1..1, the last ones of the chunk before; None without CAM.
        """
        text = text.to(self.weights_device, self.dtype)
        contexts = {}
        if anchor is not None:
            tokens = self.resampler(anchor.to(self.weights_device, self.dtype))
            contexts = {
                name: mixed_context(attention, text, tokens)
                for name, attention in spatial_cross_attentions(self.base_model).items()
            }
        memory = None
        if pictures is not None:
            encoder = self.unet.controlnet_cond_embedding
            memory = encoder(pictures.to(self.weights_device, self.dtype))
        return ChunkCondition(text, contexts, memory)

    def forward(self, latents: Tensor, timestep: Tensor, condition: ChunkCondition) -> Tensor:
        """Predict the noise.

        Args:
            latents: noisy, [1, 4, F, h, w], the same for all rows; h and w multiples of 8.
            timestep: 0-d, 0..999.
            condition: of the chunk.

        Returns:
            [N, 4, F, h, w], float32.
        """
        rows = len(condition.text)
        latents = latents.to(self.weights_device, self.dtype).expand(rows, -1, -1, -1, -1)
        timestep = timestep.to(self.weights_device)
        features: Sequence[Tensor] = ()
        if condition.memory is not None:
            seen = latents[:, :, : len(condition.memory)]
            features = self.unet(seen, timestep, condition.text, condition.memory)
        with self._merging(features, rows):
            predicted = self.base_model(
                latents,
                timestep,
                condition.text,
                cross_attention_kwargs={"contexts": condition.contexts},
                return_dict=False,
            )[0]
        return predicted.float()

    @contextmanager
    def _merging(self, features: Sequence[Tensor], rows: int) -> Iterator[None]:
        """Merge CAM's features into skip connections and middle block during one call."""
        unet, handles = self.base_model, []
        if features:
            merged = partial(self._merge_middle, features[-1], rows)
            handles.append(unet.mid_block.register_forward_hook(merged))
            end = len(features) - 1
            for block in unet.up_blocks:
                end -= len(block.resnets)
                hook = partial(self._merge_skips, features, rows, end)
                handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _merge_middle(self, features: Tensor, rows: int, _: Any, __: Any, output: Tensor) -> Tensor:
        return getattr(self.base_model, _MIDDLE_MERGER)(output, features, rows)

    def _merge_skips(
        self,
        features: Sequence[Tensor],
        rows: int,
        first: int,
        _: Any,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mergers = getattr(self.base_model, _MERGERS)
        skips = tuple(
            mergers[index](skip, features[index], rows)
            for index, skip in enumerate(named["res_hidden_states_tuple"], first)
        )
        return arguments, {**named, "res_hidden_states_tuple": skips}


def spatial_cross_attentions(unet: nn.Module) -> dict[str, Attention]:
    """Return the attentions between pixels and text by name; temporal ones are no such."""
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and ".attentions." in f".{name}" and name.endswith("attn2")
    }


def build_denoiser(released: Released, dtype: torch.dtype) -> Denoiser:
    """Build the denoiser of a released file, on the CPU in `dtype`.

    Raises:
        CheckpointError: tensors are missing, or shapes contradict each other.
    """
    parts = released.parts
    try:
        sizes = UNetSizes.of(parts["base_model"])
        mixer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.conv.weight"
        text, both = shape_of(parts["base_model"], mixer, 3)[:2]
        inner, embedding = shape_of(parts["resampler"], "context_embedding.0.weight", 2)
        with torch.device("meta"):
            made = Denoiser(sizes, _stages(parts["unet"]), text, both - text, embedding, inner)
        tensors = {
            f"{part}.{name}": tensor
            for part in ("base_model", "unet", "resampler")
            for name, tensor in parts[part].items()
        }
        return fill(made, tensors, dtype, "the denoiser")
    except CheckpointError as error:
        raise CheckpointError(
            f"{released.path.name}: {error} The file may be cut off, or of another model: download "
            "streaming_t2v.ckpt from PAIR/StreamingT2V again."
        ) from error


def _stages(tensors: dict[str, Tensor]) -> tuple[int, ...]:
    """Read the channels of CAM's picture encoder."""
    prefix = "controlnet_cond_embedding."
    count = sum(n.startswith(f"{prefix}blocks.") and n.endswith(".weight") for n in tensors)
    first = shape_of(tensors, f"{prefix}conv_in.weight", 4)[0]
    names = [f"{prefix}blocks.{index}.weight" for index in range(1, count, 2)]
    return (first, *(shape_of(tensors, name, 4)[0] for name in names))


def _with_mergers(unet: UNet3DConditionModel, head_width: int) -> UNet3DConditionModel:
    """Give a UNet the mergers of its skip connections, which it does not call itself."""
    widths = [unet.config.block_out_channels[0]]
    for block in unet.down_blocks:
        widths += [resnet.out_channels for resnet in block.resnets]
        widths += [sampler.out_channels for sampler in block.downsamplers or ()]
    middle = unet.config.block_out_channels[-1]
    setattr(unet, _MERGERS, nn.ModuleList(Merger(width, head_width) for width in widths))
    setattr(unet, _MIDDLE_MERGER, Merger(middle, head_width))
    return unet


def _set_processors(unet: UNet3DConditionModel) -> None:
    spatial = spatial_cross_attentions(unet)
    mergers = (_MERGERS, _MIDDLE_MERGER)
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and not name.startswith(mergers):
            module.set_processor(MixedContext(name if name in spatial else None))

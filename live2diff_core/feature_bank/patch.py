"""Applies StreamV2V's feature bank to a MODEL, through the host's own attention patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
from torch import Tensor

from ..host.call_context import PASSES, call_context
from ..host.sd15 import UnsupportedModelError, sd15_unet
from ..stream.call_plan import OpenedShape
from ..stream.memory import StreamShape, add_memory, applied_memories
from ..stream.noise import TokenPermutation
from .bank import BankConfig, BankedLayer
from .call import BankCall, attend_with_banks
from .memory import BankMemory

NAME = "feature_bank"
TITLE = "Apply Feature Bank"


@dataclass(frozen=True)
class SelfAttention:
    """A self-attention of the UNet.

    Attributes:
        block: (part, number), the host's name of the block in patches.
        level: one of `ALL_LEVELS`.
        downsamplings: number of downsamplers before it.
        channels: C.
    """

    block: tuple[str, int]
    level: str
    downsamplings: int
    channels: int

    @property
    def name(self) -> str:
        """Its name in saved streams; SD1.5's blocks have one attention each."""
        part, number = self.block
        return f"{part}.{number}.0"


def apply_feature_bank(model: Any, config: BankConfig) -> Any:
    """Return a clone of ComfyUI's `model` whose self-attentions have a feature bank.

    Args:
        model: a ModelPatcher of SD1.5, with any other memory or none.
        config: the configuration of the bank.

    Raises:
        UnsupportedModelError: the model is not SD1.5, has a feature bank already, or another node
            replaced one of the self-attentions.
    """
    attentions = self_attentions(sd15_unet(model))
    if NAME in applied_memories(model):
        raise UnsupportedModelError(
            "This MODEL already carries a feature bank. Connect the MODEL from before the other "
            f"'{TITLE}'."
        )
    patched = model.clone()
    used = [a for a in attentions if a.level in (*config.extend, *config.fuse)]
    add_memory(patched, AppliedFeatureBank(config, tuple(used)))
    for index, attention in enumerate(used):
        if _replacements(model, attention.block):
            raise UnsupportedModelError(
                f"Another node already replaced the self-attention of {attention.level}, which "
                f"'{TITLE}' needs. Remove it, or leave that level out of fuse and extend."
            )
        extended = _ExtendedAttention(index, attention.level in config.extend)
        patched.set_model_attn1_replace(extended, *attention.block)
    fused = {a.block: index for index, a in enumerate(used) if a.level in config.fuse}
    patched.set_model_attn1_output_patch(_FeatureFusion(fused))
    return patched


@dataclass(frozen=True)
class AppliedFeatureBank:
    """A feature bank on a MODEL (see `AppliedMemory`)."""

    config: BankConfig
    attentions: tuple[SelfAttention, ...]
    name: str = NAME
    title: str = TITLE

    @property
    def layers(self) -> tuple[BankedLayer, ...]:
        """The self-attentions, as the stream's memory knows them."""
        return tuple(
            BankedLayer(a.name, a.downsamplings, a.channels, a.level in self.config.fuse)
            for a in self.attentions
        )

    @property
    def largest_group(self) -> int:
        """One, because a bank needs no groups."""
        return 1

    @property
    def depth_encoder(self) -> Callable[[Tensor], Tensor] | None:
        """None, because a bank reads no depth."""
        return None

    def start(self, steps: Mapping[str, int], seed: int) -> BankMemory:
        """Create a stream's memory."""
        return BankMemory(self.config, TokenPermutation(seed), self.layers, steps)

    def open(self, memory: BankMemory, shape: OpenedShape) -> None:
        """Allocate a stream's banks."""
        memory.open(shape)

    def nbytes(self, shape: StreamShape) -> int:
        """Count the bytes of a stream's banks twice: the old ones stay until an update commits."""
        values = 0
        for attention in self.attentions:
            kept = 3 if attention.level in self.config.fuse else 2
            size = shape.tokens(attention.downsamplings) * attention.channels
            values += kept * size * self.config.frames
        return 2 * values * shape.passes * shape.bytes_per_value

    def check(self, model: Any) -> None:
        """Refuse a MODEL whose self-attentions have been replaced again.

        Raises:
            UnsupportedModelError: a later node replaced one.
        """
        for attention in self.attentions:
            patches = _replacements(model, attention.block)
            if [type(patch) for patch in patches] != [_ExtendedAttention]:
                raise UnsupportedModelError(
                    f"A node behind '{TITLE}' replaced the self-attention of {attention.level} "
                    "for itself. Remove it, or leave that level out of fuse and extend."
                )

    def fingerprint(self) -> dict[str, str]:
        """Identify the bank by its configuration."""
        return {"feature bank": str(self.config.normalised())}


def _replacements(model: Any, block: tuple[str, int]) -> list[Any]:
    """List the patches that replace some or all self-attentions of a block."""
    options = model.model_options.get("transformer_options", {})
    patches = options.get("patches_replace", {}).get("attn1", {})
    return [patch for key, patch in patches.items() if tuple(key[:2]) == block]


def self_attentions(unet: Any) -> list[SelfAttention]:
    """Find the self-attentions of a UNet, in the order in which they run."""
    found, level = [], 0
    for number, block in enumerate(unet.input_blocks):
        level += any(isinstance(layer, host_unet.Downsample) for layer in block)
        found += _in_block(block, ("input", number), f"down {level + 1}", level)
    deepest = level
    found += _in_block(unet.middle_block, ("middle", 0), "middle", deepest)
    for number, block in enumerate(unet.output_blocks):
        found += _in_block(block, ("output", number), f"up {deepest - level + 1}", level)
        level -= any(isinstance(layer, host_unet.Upsample) for layer in block)
    return found


def _in_block(
    layers: Any, block: tuple[str, int], level: str, downsamplings: int
) -> list[SelfAttention]:
    return [
        SelfAttention(block, level, downsamplings, layer.in_channels)
        for layer in layers
        if isinstance(layer, host_attention.SpatialTransformer)
    ]


@dataclass(frozen=True)
class _ExtendedAttention:
    """A self-attention whose queries also see the bank (an attn1_replace patch).

    Attributes:
        layer: its index in the stream's memory.
        extends: whether queries see the bank; else they only leave their features in it.
    """

    layer: int
    extends: bool

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        """Attend; all tensors are [B*N, HW, C]."""
        call, passes = _bank_call(options), options[PASSES]
        # HyperTile splits only the queries; the host distributes the keys over them.
        whole = len(passes) * call.row_count
        if (len(q), len(k)) != (whole, whole):
            raise UnsupportedModelError(
                f"Another node turned {whole} frames into {max(len(q), len(k))} inside the "
                f"self-attention (HyperTile does that); '{TITLE}' needs them whole. Remove it."
            )
        meetings = call.update(self.layer, passes, k, v)
        if not self.extends:
            return _attend(q, k, v, options)
        return attend_with_banks(q, k, v, meetings, partial(_attend, options=options))


def _attend(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
    """Run the attention function that the host has chosen at its start."""
    return host_attention.optimized_attention(
        q,
        k,
        v,
        options["n_heads"],
        attn_precision=options["attn_precision"],
        transformer_options=options,
    )


@dataclass(frozen=True)
class _FeatureFusion:
    """Fuses the outputs of the self-attentions in some blocks (an attn1_output_patch).

    Attributes:
        layers: their indices in the stream's memory, by the host's names of the blocks.
    """

    layers: Mapping[tuple[str, int], int]

    def __call__(self, n: Tensor, options: dict[str, Any]) -> Tensor:
        """Fuse the output [B*N, HW, C] of a self-attention."""
        layer = self.layers.get(options["block"])
        return n if layer is None else _bank_call(options).fuse(layer, n)


def _bank_call(options: dict[str, Any]) -> BankCall:
    return call_context(options, TITLE).plan.memory[NAME]

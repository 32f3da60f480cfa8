"""Applies StreamV2V's feature bank to a MODEL, through the host's own attention patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import torch
from torch import Tensor

from ..host.call_context import PASSES, call_context
from ..host.sd15 import UnsupportedModelError, sd15_unet
from ..stream.call_plan import OpenedShape
from ..stream.memory import StreamShape, add_memory, applied_memories
from ..stream.noise import TokenPermutation
from .bank import BankConfig, extend
from .memory import BankCall, BankMemory, BankRow, by_bank_size

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
    for attention in used:
        if _replacements(model, attention.block):
            raise UnsupportedModelError(
                f"Another node already replaced the self-attention of {attention.level}, which "
                f"'{TITLE}' needs. Remove it, or leave that level out of fuse and extend."
            )
        extends, fuses = attention.level in config.extend, attention.level in config.fuse
        patched.set_model_attn1_replace(_ExtendedAttention(extends, fuses), *attention.block)
    patched.set_model_attn1_output_patch(
        _FeatureFusion(frozenset(a.block for a in used if a.level in config.fuse))
    )
    return patched


@dataclass(frozen=True)
class AppliedFeatureBank:
    """A feature bank on a MODEL (see `AppliedMemory`)."""

    config: BankConfig
    attentions: tuple[SelfAttention, ...]
    name: str = NAME
    title: str = TITLE

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
        return BankMemory(self.config, TokenPermutation(seed))

    def open(self, memory: BankMemory, shape: OpenedShape) -> None:
        """Prepare a stream's memory for what runs."""
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
    """A self-attention whose queries also see the bank (an attn1_replace patch)."""

    extends: bool
    fuses: bool

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
        rows = call.update(_layer(options), passes, k, v, self.fuses)
        if not self.extends:
            return _attend(q, k, v, options)
        by_size = by_bank_size(rows)
        if len(by_size) == 1:
            # The usual case. Indexing rows would copy them, and wait for a GPU at every layer.
            return _attend_with_banks(q, k, v, rows, options)
        out = torch.empty_like(q)
        for alike in by_size.values():
            at = [row.row for row in alike]
            out[at] = _attend_with_banks(q[at], k[at], v[at], alike, options)
        return out


def _attend_with_banks(
    q: Tensor, k: Tensor, v: Tensor, rows: list[BankRow], options: dict[str, Any]
) -> Tensor:
    """Attend for rows whose banks have the same size; all tensors are [rows, HW, C]."""
    keys = extend(k, [row.bank.keys for row in rows])
    values = extend(v, [row.bank.values for row in rows])
    return _attend(q, keys, values, options)


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
    """Fuses the outputs of the self-attentions in `blocks` (an attn1_output_patch)."""

    blocks: frozenset[tuple[str, int]]

    def __call__(self, n: Tensor, options: dict[str, Any]) -> Tensor:
        """Fuse the output [B*N, HW, C] of a self-attention."""
        if options["block"] not in self.blocks:
            return n
        return _bank_call(options).fuse(_layer(options), n)


def _bank_call(options: dict[str, Any]) -> BankCall:
    return call_context(options, TITLE).plan.memory[NAME]


def _layer(options: dict[str, Any]) -> str:
    part, number = options["block"]
    return f"{part}.{number}.{options['block_index']}"

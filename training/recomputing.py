"""Gradient checkpointing: blocks of the UNet are computed again in the backward pass.

The host's blocks take other layers, and ask the MODEL's patches how to run them. So while the UNet
runs, each of its blocks is one layer, which runs the block under torch's checkpoint.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import comfy.patcher_extension
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_KEY = "live2diff_recompute"


class _Recomputed(nn.Module):
    """A block of the UNet as one layer."""

    def __init__(self, block: nn.Module) -> None:
        """Take the layers that the block has now, motion modules among them."""
        super().__init__()
        # Not registered: they stay the block's.
        self.layers: tuple[nn.Module, ...] = tuple(block.children())


def recompute_blocks(patched: Any) -> None:
    """Add gradient checkpointing to a ModelPatcher, inside the wrappers that it has."""
    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    patched.add_wrapper_with_key(kind, _KEY, ScopedRecomputing())
    patched.set_model_forward_timestep_embed_patch((_Recomputed, _run))


@dataclass(frozen=True)
class ScopedRecomputing:
    """Replaces the blocks while the UNet runs (a DIFFUSION_MODEL wrapper)."""

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the UNet, and always put its blocks back."""
        unet = executor.class_obj
        with ExitStack() as stack:
            # The first convolution keeps nothing worth computing again.
            places = [(unet.input_blocks, i) for i in range(1, len(unet.input_blocks))]
            places += [(unet.output_blocks, i) for i in range(len(unet.output_blocks))]
            for blocks, index in places:
                stack.callback(blocks.__setitem__, index, blocks[index])
                blocks[index] = nn.ModuleList([_Recomputed(blocks[index])])
            stack.callback(setattr, unet, "middle_block", unet.middle_block)
            unet.middle_block = nn.ModuleList([_Recomputed(unet.middle_block)])
            return executor(*args, **kwargs)


def _run(
    layer: _Recomputed, x: Tensor, emb: Tensor, context: Tensor, options: dict, *more: Any
) -> Tensor:
    """Run a block (a forward_timestep_embed_patch)."""
    # The host writes into its options where it is, which would be elsewhere the second time.
    frozen = dict(options)

    def block(x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        return host_unet.forward_timestep_embed(layer.layers, x, emb, context, dict(frozen), *more)

    return checkpoint(block, x, emb, context, use_reentrant=False, preserve_rng_state=False)

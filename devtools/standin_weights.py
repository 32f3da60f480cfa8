"""The weights of the stand-in models: seeded random numbers, and a few layers set by hand.

Random weights alone would turn every video into noise. Two parts are therefore set by hand: an
autoencoder that averages 8x8 blocks and repeats them, and, inside the random UNet, channels that
predict the fine grain of their input as noise. Frames then come out upright and in order, blurred
and textured, and a person can see that the pipeline works.
"""

from __future__ import annotations

import math
import zlib

import torch

from devtools.standin_layouts import LATENT, Shapes, motion_module_shapes

Tensors = dict[str, torch.Tensor]

# Layers that end a residual branch: small weights keep activations within float16's range.
RESIDUAL_ENDS = (
    "out_layers.3.weight",
    "proj_out.weight",
    "to_out.0.weight",
    "ff.net.2.weight",
    "out_proj.weight",
    "mlp.fc2.weight",
)
RESIDUAL_GAIN = 0.3
# The first ten channels are one group of the last GroupNorm (32 groups of 320 channels). They are
# wired by hand: 0..3 carry the latent through the UNet, 0..7 hold its fine grain at the end.
WIRED = 10
WIRED_ENDS = (
    *("out_layers.3.weight", "proj_out.weight", "skip_connection.weight"),
    *("op.weight", ".conv.weight", "input_blocks.0.0.weight"),
)
# The level whose averaged latent counts as "without noise": 2 averages 4x4 latent pixels.
SMOOTH_LEVEL = 1
TEXTURE_GAIN = 0.15
LATENT_GAIN = 3.0


def random_tensors(shapes: Shapes) -> Tensors:
    """Draw float16 weights, scaled by fan-in and seeded by name; norms are one, biases zero."""
    return {name: _random(name, shape) for name, shape in shapes.items()}


def _random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith("weight")), dtype=torch.float16)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    gain = RESIDUAL_GAIN if name.endswith(RESIDUAL_ENDS) else 1.0
    scale = gain / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator).mul_(scale).half()


def sinusoidal_positions(length: int, width: int) -> torch.Tensor:
    """Return the position table of AnimateDiff's temporal attention, [1, length, width]."""
    position = torch.arange(length).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.zeros(1, length, width)
    table[0, :, 0::2] = torch.sin(position * rate)
    table[0, :, 1::2] = torch.cos(position * rate)
    return table


def motion_module_tensors(widths: tuple[int, ...]) -> Tensors:
    """Draw motion modules and a depth encoder that do not change the UNet's wired channels."""
    tensors = random_tensors(motion_module_shapes(widths))
    for name, tensor in tensors.items():
        if name.endswith("pos_encoder.pe"):
            tensors[name] = sinusoidal_positions(*tensor.shape[1:]).half()
        elif name.endswith(("proj_out.weight", "conv_out.weight")):
            tensor[:WIRED] = 0
    return tensors


def protect_wired_rows(tensors: Tensors) -> None:
    """Prevent the layers of a UNet or a ControlNet from writing into the wired channels."""
    for name, tensor in tensors.items():
        if name.endswith(WIRED_ENDS):
            tensor[:WIRED] = 0


def wire_denoiser(unet: Tensors) -> None:
    """Make a random UNet (all levels 320 wide) predict as noise what averaging removes.

    Channels 0..3 carry the latent unchanged: down by averaging, up from SMOOTH_LEVEL by repeating
    and blurring. The last block subtracts it from the full-size latent, which the skip connection
    delivers. GroupNorm scales the difference to unit variance, like that of noise, and a pair of
    opposite channels undoes SiLU: silu(a) - silu(-a) = a.
    """
    protect_wired_rows(unet)
    model = "model.diffusion_model."
    carried = torch.arange(LATENT)
    unet[f"{model}input_blocks.0.0.weight"][carried, carried, 1, 1] = 1
    for index in (3, 6, 9):
        kernel = unet[f"{model}input_blocks.{index}.0.op.weight"]
        kernel[:LATENT] = 0
        kernel[carried, carried, 1:, 1:] = 0.25
    for index in range(12):
        _wire_up_block(unet, f"{model}output_blocks.{index}.", index)
    unet[f"{model}out.0.weight"][:WIRED] = math.sqrt(2 * LATENT / WIRED)
    last = unet[f"{model}out.2.weight"]
    last.mul_(TEXTURE_GAIN)
    last[:, :WIRED] = 0
    last[carried, carried, 1, 1] = 1
    last[carried, carried + LATENT, 1, 1] = -1


def _wire_up_block(unet: Tensors, block: str, index: int) -> None:
    carried = torch.arange(LATENT)
    joint = unet[f"{block}0.skip_connection.weight"]
    skip = joint.shape[1] // 2
    if index == 11:
        for first, sign in ((0, 1), (LATENT, -1)):
            joint[carried + first, carried + skip] = sign
            joint[carried + first, carried] = -sign
    elif index == 3 * (3 - SMOOTH_LEVEL) + 2:
        joint[carried, carried + skip] = 1
    else:
        joint[carried, carried] = 1
    for at in (1, 2):
        kernel = unet.get(f"{block}{at}.conv.weight")
        if kernel is not None:
            kernel[carried, carried] = 1 / 9


def autoencoder_tensors() -> tuple[Tensors, Tensors]:
    """Return TAESD's (encoder, decoder), which average 8x8 blocks and repeat them.

    Latent channels 0..2 are red, green and blue, centred on zero; 3 is their mean.
    """
    encoder = _taesd_convs({0: 3, 2: 64, 6: 64, 10: 64}, blocks=(1, 3, 4, 5, 7, 8, 9, 11, 12, 13))
    decoder = _taesd_convs({1: LATENT, 7: 64, 12: 64, 17: 64}, (3, 4, 5, 8, 9, 10, 13, 14, 15, 18))
    rgb = torch.arange(3)
    for index in (2, 6, 10):
        encoder[f"{index}.weight"][rgb, rgb, 1:, 1:] = 0.25
        del encoder[f"{index}.bias"]
    for index in (7, 12, 17):
        decoder[f"{index}.weight"][rgb, rgb, 1, 1] = 1
        del decoder[f"{index}.bias"]
    encoder["0.weight"][rgb, rgb, 1, 1] = 1
    encoder["14.weight"] = torch.zeros(LATENT, 64, 3, 3)
    encoder["14.weight"][rgb, rgb, 1, 1] = LATENT_GAIN
    encoder["14.weight"][3, :3, 1, 1] = LATENT_GAIN / 3
    encoder["14.bias"] = torch.full((LATENT,), -LATENT_GAIN / 2)
    # TAESD first compresses latents by 3·tanh(x/3); the gain compensates for it at the ends.
    end = 3 * math.tanh(LATENT_GAIN / 2 / 3)
    decoder["1.weight"][rgb, rgb, 1, 1] = 0.5 / end
    decoder["1.bias"][:3] = 0.5
    decoder["19.weight"] = torch.zeros(3, 64, 3, 3)
    decoder["19.weight"][rgb, rgb, 1, 1] = 1
    decoder["19.bias"] = torch.zeros(3)
    return encoder, decoder


def _taesd_convs(widths_in: dict[int, int], blocks: tuple[int, ...]) -> Tensors:
    names = {f"{index}": width for index, width in widths_in.items()}
    names |= {f"{block}.conv.{part}": 64 for block in blocks for part in (0, 2, 4)}
    tensors: Tensors = {}
    for name, width in names.items():
        tensors[f"{name}.weight"] = torch.zeros(64, width, 3, 3)
        tensors[f"{name}.bias"] = torch.zeros(64)
    return tensors

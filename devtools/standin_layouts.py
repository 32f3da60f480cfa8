"""Names and shapes of the tensors in the model files that the demo and the tests need.

Layouts are {tensor name: shape} dictionaries, named as in the published files. Their parameter
`widths` holds the channels of the UNet's four levels, (320, 640, 1280, 1280) in SD1.5.
"""

from __future__ import annotations

from collections.abc import Iterator

Shapes = dict[str, tuple[int, ...]]

STEM = 320
TIME = 1280
CONTEXT = 768
LATENT = 4
DEPTH_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
PE_LENGTH = 24


def _affine(name: str, *weight: int) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": (weight[0],)}


def _res_block(name: str, c_in: int, c_out: int) -> Shapes:
    shapes = {
        **_affine(f"{name}.in_layers.0", c_in),
        **_affine(f"{name}.in_layers.2", c_out, c_in, 3, 3),
        **_affine(f"{name}.emb_layers.1", c_out, TIME),
        **_affine(f"{name}.out_layers.0", c_out),
        **_affine(f"{name}.out_layers.3", c_out, c_out, 3, 3),
    }
    if c_in != c_out:
        shapes.update(_affine(f"{name}.skip_connection", c_out, c_in, 1, 1))
    return shapes


def _attention(name: str, width: int, context: int) -> Shapes:
    return {
        f"{name}.to_q.weight": (width, width),
        f"{name}.to_k.weight": (width, context),
        f"{name}.to_v.weight": (width, context),
        **_affine(f"{name}.to_out.0", width, width),
    }


def _feed_forward(name: str, width: int) -> Shapes:
    # GEGLU: the first projection computes both values and gates.
    return {
        **_affine(f"{name}.net.0.proj", 8 * width, width),
        **_affine(f"{name}.net.2", width, 4 * width),
    }


def _spatial_transformer(name: str, width: int) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    return {
        **_affine(f"{name}.norm", width),
        **_affine(f"{name}.proj_in", width, width, 1, 1),
        **_attention(f"{block}.attn1", width, width),
        **_feed_forward(f"{block}.ff", width),
        **_attention(f"{block}.attn2", width, CONTEXT),
        **{k: v for n in (1, 2, 3) for k, v in _affine(f"{block}.norm{n}", width).items()},
        **_affine(f"{name}.proj_out", width, width, 1, 1),
    }


def encoder_shapes(prefix: str, widths: tuple[int, ...]) -> tuple[Shapes, list[int]]:
    """Return time embedding, input and middle blocks, and the width of each input block.

    A UNet and a ControlNet share this part.
    """
    shapes = {
        **_affine(f"{prefix}time_embed.0", TIME, STEM),
        **_affine(f"{prefix}time_embed.2", TIME, TIME),
        **_affine(f"{prefix}input_blocks.0.0", STEM, LATENT, 3, 3),
    }
    skips = [STEM]
    for level, width in enumerate(widths):
        for _ in range(2):
            name = f"{prefix}input_blocks.{len(skips)}"
            shapes.update(_res_block(f"{name}.0", skips[-1], width))
            if level < 3:
                shapes.update(_spatial_transformer(f"{name}.1", width))
            skips.append(width)
        if level < 3:
            name = f"{prefix}input_blocks.{len(skips)}.0.op"
            shapes.update(_affine(name, width, width, 3, 3))
            skips.append(width)
    for index in (0, 2):
        shapes.update(_res_block(f"{prefix}middle_block.{index}", widths[-1], widths[-1]))
    shapes.update(_spatial_transformer(f"{prefix}middle_block.1", widths[-1]))
    return shapes, skips


def unet_shapes(widths: tuple[int, ...]) -> Shapes:
    """Return the layout of the SD1.5 UNet under its LDM names, `model.diffusion_model.*`."""
    prefix = "model.diffusion_model."
    shapes, skips = encoder_shapes(prefix, widths)
    channels = widths[-1]
    for index in range(12):
        level = 3 - index // 3
        name = f"{prefix}output_blocks.{index}"
        shapes.update(_res_block(f"{name}.0", channels + skips.pop(), widths[level]))
        channels = widths[level]
        if level < 3:
            shapes.update(_spatial_transformer(f"{name}.1", channels))
        if level and index % 3 == 2:
            at = 1 if level == 3 else 2
            shapes.update(_affine(f"{name}.{at}.conv", channels, channels, 3, 3))
    shapes.update(_affine(f"{prefix}out.0", channels))
    shapes.update(_affine(f"{prefix}out.2", LATENT, channels, 3, 3))
    return shapes


def controlnet_shapes(widths: tuple[int, ...]) -> Shapes:
    """Return the layout of an SD1.5 ControlNet 1.1 under its LDM names, `control_model.*`."""
    prefix = "control_model."
    shapes, skips = encoder_shapes(prefix, widths)
    hint = (3, 16, 16, 32, 32, 96, 96, 256, STEM)
    for index, (c_in, c_out) in enumerate(zip(hint, hint[1:], strict=False)):
        shapes.update(_affine(f"{prefix}input_hint_block.{2 * index}", c_out, c_in, 3, 3))
    for index, width in enumerate(skips):
        shapes.update(_affine(f"{prefix}zero_convs.{index}.0", width, width, 1, 1))
    shapes.update(_affine(f"{prefix}middle_block_out.0", widths[-1], widths[-1], 1, 1))
    return shapes


def clip_shapes() -> Shapes:
    """Return the layout of CLIP-L's text model as in SD1.5 checkpoints."""
    prefix = "cond_stage_model.transformer.text_model."
    shapes: Shapes = {
        f"{prefix}embeddings.token_embedding.weight": (49408, CONTEXT),
        f"{prefix}embeddings.position_embedding.weight": (77, CONTEXT),
        **_affine(f"{prefix}final_layer_norm", CONTEXT),
    }
    for index in range(12):
        layer = f"{prefix}encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes.update(_affine(f"{layer}.self_attn.{name}", CONTEXT, CONTEXT))
        shapes.update(_affine(f"{layer}.layer_norm1", CONTEXT))
        shapes.update(_affine(f"{layer}.layer_norm2", CONTEXT))
        shapes.update(_affine(f"{layer}.mlp.fc1", 4 * CONTEXT, CONTEXT))
        shapes.update(_affine(f"{layer}.mlp.fc2", CONTEXT, 4 * CONTEXT))
    return shapes


def motion_module_shapes(widths: tuple[int, ...]) -> Shapes:
    """Return the layout of Live2Diff's motion modules and depth encoder, without `module.`."""
    shapes: Shapes = {}
    channels = (LATENT, *DEPTH_CHANNELS)
    for index, (c_in, c_out) in enumerate(zip(channels, channels[1:], strict=False)):
        name = "conv_in" if index == 0 else f"blocks.{index - 1}"
        shapes.update(_affine(f"flow_conv_in.{name}", c_out, c_in, 3, 3))
    shapes.update(_affine("flow_conv_in.conv_out", STEM, channels[-1], 3, 3))
    for level, width in enumerate(widths):
        for side, block, count in (("down", level, 2), ("up", 3 - level, 3)):
            for index in range(count):
                name = f"{side}_blocks.{block}.motion_modules.{index}.temporal_transformer"
                shapes.update(_temporal_transformer(name, width))
    return shapes


def _temporal_transformer(name: str, width: int) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    shapes = {**_affine(f"{name}.norm", width), **_affine(f"{name}.proj_in", width, width)}
    for index in range(2):
        attention = f"{block}.attention_blocks.{index}"
        shapes.update(_attention(attention, width, width))
        shapes[f"{attention}.pos_encoder.pe"] = (1, PE_LENGTH, width)
        shapes.update(_affine(f"{block}.norms.{index}", width))
    shapes.update(_feed_forward(f"{block}.ff", width))
    shapes.update(_affine(f"{block}.ff_norm", width))
    shapes.update(_affine(f"{name}.proj_out", width, width))
    return shapes


def lora_targets(widths: tuple[int, ...], text: bool) -> Iterator[tuple[str, str]]:
    """Yield (kohya name, weight's name in the checkpoint) of each layer that a LoRA may change."""
    shapes = unet_shapes(widths)
    for block, ldm, part in _unet_parts():
        for inner, kohya in _PART_LAYERS[part]:
            weight = f"model.diffusion_model.{ldm}.{inner}.weight"
            if weight in shapes:
                yield f"lora_unet_{block}_{kohya}", weight
    if not text:
        return
    for name in clip_shapes():
        if name.endswith("proj.weight") or ".mlp." in name and name.endswith(".weight"):
            short = name.removeprefix("cond_stage_model.transformer.").removesuffix(".weight")
            yield f"lora_te_{short.replace('.', '_')}", name


_ATTENTION_LAYERS = [
    f"transformer_blocks.0.{layer}"
    for layer in (
        *(f"attn{n}.to_{x}" for n in (1, 2) for x in ("q", "k", "v", "out.0")),
        "ff.net.0.proj",
        "ff.net.2",
    )
]
_PART_LAYERS = {
    "attention": [
        (layer, layer.replace(".", "_")) for layer in ("proj_in", *_ATTENTION_LAYERS, "proj_out")
    ],
    "resnet": [
        ("in_layers.2", "conv1"),
        ("out_layers.3", "conv2"),
        ("emb_layers.1", "time_emb_proj"),
        ("skip_connection", "conv_shortcut"),
    ],
}


def _unet_parts() -> Iterator[tuple[str, str, str]]:
    """Yield (diffusers name, LDM name, part) of every ResBlock and transformer of the UNet."""
    for level in range(4):
        for index in range(2):
            ldm = f"input_blocks.{1 + 3 * level + index}"
            yield f"down_blocks_{level}_resnets_{index}", f"{ldm}.0", "resnet"
            yield f"down_blocks_{level}_attentions_{index}", f"{ldm}.1", "attention"
        for index in range(3):
            ldm = f"output_blocks.{3 * level + index}"
            yield f"up_blocks_{level}_resnets_{index}", f"{ldm}.0", "resnet"
            yield f"up_blocks_{level}_attentions_{index}", f"{ldm}.1", "attention"
    yield "mid_block_resnets_0", "middle_block.0", "resnet"
    yield "mid_block_attentions_0", "middle_block.1", "attention"
    yield "mid_block_resnets_1", "middle_block.2", "resnet"

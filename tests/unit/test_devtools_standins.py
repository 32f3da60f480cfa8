"""Stand-in weights: what the wiring promises, on the tensors themselves."""

import torch
import torch.nn.functional as F  # noqa: N812

from devtools import standin_layouts, standin_weights, standins

WIDTHS = standins.WIDTHS


def run_taesd(tensors, picture, first, last, strides):
    """TAESD's layers by hand: convolutions, ReLU after blocks, nearest upsampling."""
    blocks = {int(name.split(".")[0]) for name in tensors if ".conv." in name}
    for index in range(first, last + 1):
        if index in blocks:
            picture = F.relu(picture)
        elif f"{index}.weight" in tensors:
            weight, bias = tensors[f"{index}.weight"], tensors.get(f"{index}.bias")
            picture = F.conv2d(picture, weight, bias, strides.get(index, 1), 1)
        elif index > 2:
            picture = F.interpolate(picture, scale_factor=2)
    return picture


def test_autoencoder_averages_blocks_and_repeats_them():
    encoder, decoder = standin_weights.autoencoder_tensors()
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 32, 48)
    latent = run_taesd(encoder, picture, 0, 14, {2: 2, 6: 2, 10: 2})
    average = F.avg_pool2d(picture, 8)
    assert torch.allclose(latent[:, :3], (average - 0.5) * 3, atol=1e-5)
    result = run_taesd(decoder, 3 * torch.tanh(latent / 3), 1, 19, {})
    assert (result - F.interpolate(average, scale_factor=8)).abs().max() < 0.03


def test_motion_module_positions_are_sinusoidal():
    table = standin_weights.sinusoidal_positions(24, 8)
    assert table.shape == (1, 24, 8)
    assert torch.equal(table[0, 0], torch.tensor([0.0, 1.0] * 4))
    assert torch.allclose(table[0, :, 0], torch.arange(24).sin())


def test_random_weights_are_repeatable_and_differ_by_name():
    shapes = {"a.weight": (8, 8), "b.weight": (8, 8), "n.weight": (8,), "n.bias": (8,)}
    first, again = (standin_weights.random_tensors(shapes) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in shapes)
    assert not torch.equal(first["a.weight"], first["b.weight"])
    assert first["n.weight"].unique().tolist() == [1]
    assert first["n.bias"].unique().tolist() == [0]


def test_real_widths_have_the_real_number_of_parameters():
    """SD1.5's UNet has 859.5 million parameters, its ControlNet 361.3 million."""
    wide = (320, 640, 1280, 1280)

    def count(shapes):
        return sum(torch.Size(shape).numel() for shape in shapes.values())

    assert count(standin_layouts.unet_shapes(wide)) == 859_520_964
    assert count(standin_layouts.controlnet_shapes(wide)) == 361_279_120
    assert count(standin_layouts.clip_shapes()) == 123_060_480


def test_lora_covers_layers_that_exist_and_leaves_wired_rows_alone():
    shapes = standin_layouts.unet_shapes(WIDTHS) | standin_layouts.clip_shapes()
    targets = dict(standin_layouts.lora_targets(WIDTHS, text=True))
    assert set(targets.values()) <= set(shapes)
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k" in targets
    assert "lora_unet_up_blocks_3_resnets_2_conv_shortcut" in targets
    assert "lora_te_text_model_encoder_layers_11_mlp_fc2" in targets
    lora = standins.lora_tensors("test", text=False)
    up = lora["lora_unet_up_blocks_3_resnets_2_conv2.lora_up.weight"]
    assert up[: standin_weights.WIRED].abs().max() == 0
    assert up[standin_weights.WIRED :].abs().max() > 0

"""The loaders of long videos: files of the released layout, and files that are refused."""

import logging
import shutil

import numpy
import pytest
import torch
from host_stream import core, node
from long_videos import LongVideos, load_enhancer, load_t2v, models_in, pictures, shown

FILE, ENHANCER = "streaming_t2v.ckpt", "non_ema_0035000.pth"


def test_the_clip_and_the_vision_model_work_in_other_nodes(videos):
    tokens = videos.clip.tokenize("a cat on the moon")
    with torch.inference_mode():
        encoded = videos.clip.encode_from_tokens_scheduled(tokens)
        seen = videos.clip_vision.encode_image(pictures(1))
    assert encoded[0][0].shape == (1, 77, 64)
    assert encoded[0][0].isfinite().all()
    assert numpy.isfinite(seen["image_embeds"].float().numpy()).all()


def part(t2v_files, name):
    """The tensors of a part of the stand-in, in float32."""
    tensors = torch.load(str(t2v_files / FILE), weights_only=True)["state_dict"]
    found = {n.removeprefix(f"{name}."): t for n, t in tensors.items() if n.startswith(f"{name}.")}
    return {key: tensor.float() for key, tensor in found.items()}


@torch.inference_mode()
def test_the_clip_gives_the_texts_of_the_files_own_encoder(videos, t2v_files):
    """The published code runs it through transformers, to the last layer and its norm."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tensors = part(t2v_files, "text_encoder")
    widths = {"hidden_size": 64, "intermediate_size": 256, "projection_dim": 64}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "gelu"}
    theirs = CLIPTextModel(CLIPTextConfig(vocab_size=49408, **widths, **layers)).eval()
    known = theirs.state_dict()
    # Newer versions have no `text_model.` in front, older ones count the positions, too.
    renamed = {n if n in known else n.removeprefix("text_model."): t for n, t in tensors.items()}
    missing = theirs.load_state_dict(renamed, strict=False).missing_keys
    assert all("position_ids" in name for name in missing)
    words = videos.clip.tokenize("a cat on the moon")["h"][0]
    ids = torch.tensor([[word for word, _ in words]])
    ours = videos.clip.encode_from_tokens_scheduled({"h": [words]})[0][0]
    wanted = theirs(input_ids=ids)[0]
    assert (ours.float().cpu() - wanted).abs().max() < 1e-4 * wanted.abs().max()


@torch.inference_mode()
def test_the_vae_decodes_as_the_files_own_one(videos, t2v_files):
    """The published code runs it through diffusers."""
    from diffusers import AutoencoderKL

    theirs = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32,) * 4,
        layers_per_block=2,
        latent_channels=4,
    ).eval()
    theirs.load_state_dict(part(t2v_files, "vae"))
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = (theirs.decode(latent).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    assert (videos.vae.decode(latent).cpu() - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["", "nowhere.ckpt"])
def test_a_missing_file_is_reported_before_the_run(name, t2v_files):
    load = node("streamingt2v", "Live2DiffLoadStreamingT2V")
    with models_in(t2v_files):
        assert FILE in load.validate_inputs(model=name)
        assert load.validate_inputs(model=FILE) is True
        enhancer = node("streamingt2v", "Live2DiffLoadVideoEnhancer")
        assert "non_ema" in enhancer.validate_inputs(name)
        with pytest.raises(FileNotFoundError, match=FILE):
            load.execute(model=name)


def edited(t2v_files, tmp_path, edit, name=FILE):
    """Write a changed copy of a stand-in, and its config.json; return their folder."""
    content = torch.load(str(t2v_files / name), weights_only=True)
    edit(content["state_dict"])
    torch.save(content, str(tmp_path / name))
    shutil.copy(t2v_files / "config.json", tmp_path)
    return tmp_path


def without(*prefixes):
    def edit(tensors):
        for name in [name for name in tensors if name.startswith(prefixes)]:
            del tensors[name]

    return edit


def reshaped(name, *shape):
    def edit(tensors):
        tensors[name] = torch.zeros(shape)

    return edit


@pytest.mark.parametrize(
    "edit, message",
    [
        (without("resampler."), "has no tensors of resampler"),
        (without("base_model.conv_out.bias"), "1 tensors are missing"),
        (without("base_model.transformer_in.proj_in.weight"), "from which sizes are read"),
        (reshaped("base_model.mid_block.new.weight", 3), "not known"),
        (reshaped("unet.conv_in.weight", 32, 5, 3, 3), "contradict"),
        (reshaped("base_model.transformer_in.proj_in.weight", 100, 32), "contradict"),
        (without("vae.decoder.conv_in.weight"), "the VAE"),
        (reshaped("vae.decoder.conv_in.weight", 32, 7, 3, 3), "the VAE"),
        (without("text_encoder.text_model.final_layer_norm.bias"), "the text encoder"),
        (without("image_encoder.model.visual.ln_post.weight"), "the image encoder"),
        # Parts that are whole, but of other models.
        (reshaped("image_encoder.model.visual.proj", 32, 48), "image_encoder makes 48 numbers"),
        (
            reshaped("text_encoder.text_model.embeddings.token_embedding.weight", 49408, 32),
            "text_encoder makes 32 numbers",
        ),
        (reshaped("vae.post_quant_conv.weight", 16, 16, 1, 1), "vae reads 16"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(t2v_files, tmp_path, edit, message):
    with pytest.raises(ValueError, match=message) as error:
        load_t2v(edited(t2v_files, tmp_path, edit))
    assert FILE in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
        (b"", "no model at all"),
    ],
)
def test_a_file_that_is_none_is_refused(pack, tmp_path, content, message):
    for name, load in ((FILE, load_t2v), (ENHANCER, load_enhancer)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            load(tmp_path)


@pytest.mark.parametrize(
    "config, message",
    [
        ("{", "no JSON"),
        ("[]", "sizes by part"),
        ('{"clip_vision": {"head_width": 0}}', "number from 1 on"),
    ],
)
def test_sizes_beside_the_file_are_checked(t2v_files, tmp_path, config, message):
    shutil.copy(t2v_files / FILE, tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=message):
        load_t2v(tmp_path)


def test_a_pickle_that_asks_for_code_is_converted_and_loads(t2v_files, tmp_path, folders, capsys):
    """The error names the command, and what the command makes gives the same frames."""
    content = torch.load(str(t2v_files / FILE), weights_only=True)
    content["state_dict"] = {n: t.float() for n, t in content["state_dict"].items()}
    content["logger"] = logging.Formatter()
    torch.save(content, str(tmp_path / FILE))
    shutil.copy(t2v_files / "config.json", tmp_path)
    with pytest.raises(ValueError, match=f"(?s)run code.*python convert_streamingt2v.py {FILE}"):
        load_t2v(tmp_path)

    assert core("streamingt2v.convert").main([str(tmp_path / FILE)]) == 0
    converted = tmp_path / "streaming_t2v.safetensors"
    assert f"{len(content['state_dict'])} tensors" in capsys.readouterr().out
    assert converted.stat().st_size < 0.52 * (tmp_path / FILE).stat().st_size
    enhancer = load_enhancer(t2v_files)
    found, usual = (
        shown(LongVideos(*loaded, enhancer).make(frames=2))
        for loaded in (load_t2v(tmp_path, converted.name), load_t2v(t2v_files))
    )
    assert (found == usual).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_unets_compute_in_what_the_host_says(t2v_files, folders, monkeypatch, videos, dtype):
    """In half precision a video stays near that of float32."""
    parts = core("streamingt2v.host_parts")
    exact = (shown(videos.make(frames=18)), shown(videos.enhance(images=pictures(3))))
    monkeypatch.setattr(parts.comfy.model_management, "unet_dtype", lambda **_: dtype)
    half = LongVideos(*load_t2v(t2v_files), load_enhancer(t2v_files))
    assert half.model.denoiser.dtype == half.enhancer.network.dtype == dtype
    found = (shown(half.make(frames=18)), shown(half.enhance(images=pictures(3))))
    for ours, wanted in zip(found, exact, strict=True):
        off = numpy.abs(ours.astype(float) - wanted).mean()
        assert 0 < off < 4, off


@pytest.mark.parametrize(
    "edit, message",
    [
        (without("input_blocks.0.0.bias"), "1 tensors are missing"),
        (reshaped("input_blocks.1.0.emb_layers.1.weight", 3, 3), "contradict"),
        (reshaped("input_hint_block.0.weight", 3), "not one of the enhancer's"),
    ],
)
def test_an_enhancer_that_does_not_fit_is_refused(t2v_files, tmp_path, edit, message):
    with pytest.raises(ValueError, match=message) as error:
        load_enhancer(edited(t2v_files, tmp_path, edit, ENHANCER))
    assert ENHANCER in str(error.value)


def test_a_file_of_the_other_loader_is_refused(t2v_files):
    with pytest.raises(ValueError, match="MS-Vid2Vid-XL"):
        load_enhancer(t2v_files, FILE)
    with pytest.raises(ValueError, match="not StreamingT2V's file"):
        load_t2v(t2v_files, ENHANCER)

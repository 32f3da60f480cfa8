"""The sample model that ships: it loads, fits the pack, and translates."""

from importlib import import_module

import numpy as np
import pytest
import skimage.data
import torch

ALIAS = "comfyui_live2diff.live2diff_core"


@pytest.fixture(scope="module")
def loading(pack):
    return import_module(f"{ALIAS}.sample_model.loading")


@pytest.fixture(scope="module")
def sample(loading):
    return loading.load_sample_model()


def picture(name="chelsea", side=256):
    whole = getattr(skimage.data, name)()[:side, 60 : 60 + side]
    return torch.from_numpy(whole.astype(np.float32) / 255)[None]


def test_all_parts_together_are_small(loading):
    sizes = [path.stat().st_size for path in loading.WEIGHTS.glob("*.safetensors")]
    assert len(sizes) == 5 and sum(sizes) < 30e6


def test_streams_take_the_model(pack, sample):
    sd15 = import_module(f"{ALIAS}.host.sd15")
    assert sd15.sd15_unet(sample.model).model_channels == 64


def test_the_vae_keeps_a_picture(sample):
    shown = picture()
    latents = sample.vae.encode(shown)
    assert latents.shape == (1, 4, 32, 32)
    scaled = sample.model.model.process_latent_in(latents)
    assert 1.5 < float(scaled.std()) < 4.5
    error = (sample.vae.decode(latents) - shown).square().mean()
    assert -10 * torch.log10(error) > 22


def test_words_that_are_not_known_are_one_word(sample):
    def encoded(text):
        return sample.clip.encode_from_tokens(sample.clip.tokenize(text))

    assert encoded("neon lights").shape == (1, 77, 64)
    assert torch.equal(encoded("neon zebra"), encoded("neon otter"))
    assert not torch.equal(encoded("neon lights"), encoded("pencil drawing"))


def test_what_covers_something_is_nearer(sample):
    shown = picture("coffee")
    shown[:, 160:, 60:200] = torch.tensor([0.2, 0.8, 0.3])
    depth = sample.depth_model.predict(shown)[0]
    assert depth.shape == (384, 384)
    assert depth[280:360, 120:280].mean() > depth[:120].mean()


def test_a_missing_file_is_named(loading, monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"unet\.safetensors.*sample-model WORK"):
        loading.load_sample_model()

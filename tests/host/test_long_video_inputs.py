"""What the nodes of long videos are given: odd, short or wrong; memory; sound; interrupts."""

from itertools import groupby
from types import SimpleNamespace

import clips
import comfy.model_management
import pytest
import torch
from comfy_api.latest import InputImpl
from host_stream import core
from long_videos import SIZE, forget, pictures, shown, text


def clip(tmp_path, frames, **more):
    """A VIDEO of numbered pictures at 25 frames per second."""
    return InputImpl.VideoFromFile(str(clips.make_clip(tmp_path, frames=frames, **more)))


def test_no_pictures_are_refused(videos, folders):
    for make, name in ((videos.make, "first_frames"), (videos.enhance, "images")):
        with pytest.raises(ValueError, match=f"{name} holds 0 frames"):
            make(**{name: torch.zeros(0, SIZE, SIZE, 3)})


@pytest.mark.parametrize("shape", [(37, 51, 3), (131, 41, 4)])
def test_pictures_may_have_odd_sizes_and_transparency(videos, folders, shape):
    odd = torch.rand(16, *shape, generator=torch.Generator().manual_seed(0))
    assert shown(videos.make(frames=17, first_frames=odd)).shape == (17, SIZE, SIZE, 3)
    enhanced = shown(videos.enhance(images=odd[:3], codec="h264"))
    assert len(enhanced) == 3
    assert not any(side % 8 for side in enhanced.shape[1:3])


def test_a_sliver_cannot_be_enhanced(videos, folders):
    with pytest.raises(ValueError, match="9x130 pixels; fitted, it is 0x80"):
        videos.enhance(images=torch.rand(2, 130, 9, 3))


@pytest.mark.parametrize("count, at_rate", [(6, 2), (40, 13), (46, 15)])
def test_a_video_of_less_than_two_seconds_is_not_extended(
    videos, folders, tmp_path, count, at_rate
):
    short = clip(tmp_path, count)
    with videos.stopping_at(None), pytest.raises(ValueError, match=f"not with {at_rate}:"):
        videos.extend(short)
    assert not videos.calls


def test_a_picture_as_a_video_is_repeated(videos, folders):
    picture = videos.make(frames=1)
    for made in (videos.extend(picture), videos.make(frames=24, first_video=picture)):
        found = shown(made)
        assert len(found) == 24
        assert (found[:16] == found[0]).all()
        assert (found[16] != found[0]).any()


def test_what_is_not_there_is_not_made_anew(videos, folders):
    original = videos.make(frames=20)
    with videos.stopping_at(None), pytest.raises(ValueError, match="20 frames.*it can be is 1;"):
        videos.extend(original, redo_from_chunk=2)
    assert not videos.calls


def test_a_vae_of_another_model_is_refused(videos, folders):
    other = SimpleNamespace(latent_dim=3, latent_channels=16)
    runs = (videos.make, lambda **c: videos.extend(None, **c), videos.enhance)
    for run in runs:
        with pytest.raises(ValueError, match="16 channels"):
            run(vae=other)


@pytest.mark.parametrize("tokens, width", [(77, 768), (77, 1280), (50, 64)])
def test_texts_of_other_encoders_are_refused(videos, folders, tokens, width):
    wrong = text(1, width=width, tokens=tokens)
    runs = (videos.make, lambda **c: videos.extend(None, **c), videos.enhance)
    for run in runs:
        for kind in ("positive", "negative"):
            with pytest.raises(ValueError, match=f"{kind} prompt.*OpenCLIP-H"):
                run(**{kind: wrong})


def test_the_sound_is_copied(videos, folders, tmp_path):
    original = clip(tmp_path, 55, sounds=("aac",))
    sound = clips.sound_of(original.get_stream_source())
    for made in (videos.extend(original), videos.enhance(video=original, steps=1)):
        assert clips.sound_of(made.get_stream_source()) == sound


def test_a_video_that_does_not_fit_is_refused_before_it_runs(videos, folders, monkeypatch, caplog):
    """The prediction is logged, and names each part."""
    with caplog.at_level("INFO"):
        videos.make(frames=1)
        videos.enhance(images=pictures(1))
    told = [line for line in caplog.messages if " at most, in turns " in line]
    assert ["image encoder" in line for line in told] == [True, False]
    assert all("UNet" in line and "VAE" in line for line in told)
    management = core("streamingt2v.opened").comfy.model_management
    monkeypatch.setattr(management, "get_free_memory", lambda *_, **__: 1_000_000)
    original, short = pictures(16), core("host.memory_need").StreamMemoryError
    runs = (
        lambda: videos.make(seed=9),
        lambda: videos.make(seed=9, first_frames=original),
        lambda: videos.enhance(seed=9, images=original),
    )
    for run in runs:
        with videos.stopping_at(None), pytest.raises(short, match="needs at least .*UNet"):
            run()
        assert not videos.calls


def test_only_what_works_is_asked_for(videos, folders, monkeypatch):
    """The models are loaded one by one, each before its stage."""
    management, asked = comfy.model_management, []
    names = {
        id(videos.model.patcher): "UNet",
        id(videos.vae.patcher): "VAE",
        id(videos.clip_vision.patcher): "image encoder",
        id(videos.enhancer.patcher): "enhancer",
    }
    load = management.load_models_gpu

    def noted(models, *rest, **more):
        assert len(models) == 1
        asked.append(names[id(models[0])])
        return load(models, *rest, **more)

    monkeypatch.setattr(management, "load_models_gpu", noted)
    made = videos.make(frames=25)
    assert asked == ["UNet", "VAE", "image encoder", "UNet", "VAE", "UNet", "VAE"]
    asked.clear()
    videos.enhance(video=made, chunk=24, overlap=8, steps=1)
    # Two chunks: in turns, not frame by frame.
    turns = [name for name, _ in groupby(asked)]
    assert turns == ["VAE", "enhancer", "VAE", "enhancer", "VAE"]


def test_an_interrupted_video_goes_on_to_the_same_frames(videos, folders):
    """ComfyUI's own interrupt, in the midst of a chunk."""
    whole = shown(videos.make(frames=26, steps=3))
    forget(folders)
    with videos.stopping_at(5) as stopped:
        stopped.then = comfy.model_management.interrupt_current_processing
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            videos.make(frames=26, steps=3)
    with videos.stopping_at(None):
        assert (shown(videos.make(frames=26, steps=3)) == whole).all()
        # The two chunks that were not complete.
        assert videos.calls == 6

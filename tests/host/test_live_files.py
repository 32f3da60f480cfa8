"""Live streams saved to files and loaded, through the nodes, inside ComfyUI's process."""

import pytest
import torch
from host_stream import core, node, patched
from live_stream_inputs import load, pictures, reset, sampled, save, step

pytestmark = pytest.mark.usefixtures("streams")


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, 4, 2)


def test_saved_and_loaded_goes_on_exactly(model, vae, folders, streams):
    images = pictures(9)
    expected = sampled(images, model, vae)
    for at in (1, 3, 5):
        streams.clear()
        step(images[:at], model, vae)
        save()
        step(pictures(2, seed=8), model, vae)
        reset()
        load()
        result, _, _ = step(images[at:], model, vae, finish=True)
        assert torch.equal(result, expected[-len(result) :])
        assert len(result) == {1: 9, 3: 7, 5: 5}[at]


def test_load_once_or_every_run(model, vae, folders):
    images = pictures(7)
    step(images[:4], model, vae)
    save()
    for image, index in zip(images[4:], (3, 4, 5), strict=True):
        load()
        assert step(image[None], model, vae)[1] == index
    for _ in range(2):
        load(when="every run")
        assert step(images[4:5], model, vae)[1] == 3
    load()
    # Starting over is no reason to go back to the file, which has the old settings.
    step(images[:1], model, vae, seed=8)
    load()
    assert step(images[:4], model, vae, seed=8)[1] == 0


def test_loaded_under_another_name(model, vae, folders, streams):
    images = pictures(6)
    step(images[:4], model, vae)
    save(file="kept.safetensors")
    load("copy", "kept")
    both = [step(images[4:5], model, vae, stream=name)[0] for name in ("live", "copy")]
    assert torch.equal(*both)


def test_loaded_with_other_settings(model, vae, folders, streams):
    images = pictures(5)
    step(images[:4], model, vae)
    save()
    reset()
    load()
    with pytest.raises(ValueError, match=r"loaded from live.safetensors.*: seed 3 -> 4\. Set"):
        step(images[4:], model, vae, seed=4)
    assert step(images[4:], model, vae)[1] == 3


def test_only_a_stream_that_lives_can_be_saved(pack, folders):
    with pytest.raises(ValueError, match="no live stream 'live' to save. No live streams"):
        save()


@pytest.mark.parametrize("file", ["../x", "a/b", "a\\b", "/etc/x", "", ".hidden", "a..", "x:y"])
def test_file_names_that_lead_elsewhere(model, vae, folders, file):
    step(pictures(1), model, vae)
    with pytest.raises(ValueError, match="cannot be the name of a saved stream"):
        save(file=file)


def test_files_outside_are_neither_listed_nor_loaded(model, vae, folders):
    step(pictures(1), model, vae)
    save()
    outside = folders / "outside.safetensors"
    outside.write_bytes((folders / "output/live2diff/live.safetensors").read_bytes())
    (folders / "input" / "link.safetensors").symlink_to(outside)
    loader = node("live_files", "Live2DiffLoadStream")
    assert loader.define_schema().inputs[0].options == ["live.safetensors [output]"]
    for name in ("../outside.safetensors [input]", "link.safetensors [input]", str(outside)):
        assert "no saved stream" in loader.validate_inputs(name)
        with pytest.raises(ValueError, match="no saved stream"):
            loader.execute(name, "live", "once")
    assert loader.validate_inputs("live.safetensors [output]") is True


def test_files_that_are_no_streams(pack, folders):
    save_state = core("run.state_file").save_state
    (folders / "input" / "text.safetensors").write_text("hello")
    save_state(folders / "input" / "video.safetensors", {"a": torch.zeros(1)}, {"seed": 1})
    with pytest.raises(ValueError, match="damaged"):
        load(file="text", folder="input")
    with pytest.raises(ValueError, match="state of a video"):
        load(file="video", folder="input")

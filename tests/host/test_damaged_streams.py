"""Saved streams of valid form and wrong content: refused with the file's name, nothing changed."""

import shutil

import pytest
import torch
from frozen import FROZEN, LIVE, SAVED_AFTER, frozen_model, live_frames, live_settings
from host_bank import banked
from host_stream import patched
from live_stream_inputs import load, pictures, reset, save, step
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stream_video import Calls, StoppedError, block_clip, translated

pytestmark = pytest.mark.usefixtures("streams")
# What a state without the list of its tensors (version 0.1.0) may lack, and goes on with other
# decisions than it would have: the file does not say that it was there.
OPTIONAL = {"translator/similar/last"}


@pytest.fixture
def model(sd15, motion):
    Calls(sd15)
    return frozen_model(sd15, motion)


@pytest.fixture(params=["now", "0.1.0"])
def saved(request, model, vae, folders):
    """(path, tensors, metadata) of a stream with everything that it can have."""
    path = folders / "output" / "live2diff" / LIVE
    if request.param == "now":
        for image in live_frames()[:SAVED_AFTER]:
            step(image[None], model, vae, **live_settings())
        save()
    else:
        path.parent.mkdir()
        shutil.copy(FROZEN / "0.1.0" / LIVE, path)
    with safe_open(str(path), framework="pt") as file:
        names = list(file.keys())
        # Without its checksum, so that the owners of the parts have to notice.
        metadata = {k: v for k, v in file.metadata().items() if k != "checksum"}
        return path, {name: file.get_tensor(name) for name in names}, metadata


def changes_of(name, tensor):
    """Wrong replacements of one tensor: (what is wrong, tensor or None for none)."""
    yield "missing", None
    yield "one dimension more", tensor[None].clone()
    if tensor.ndim and tensor.numel():
        yield "one dimension less", tensor.flatten()[:1].reshape(()).clone()
        yield "longer", torch.cat([tensor, tensor[:1]])
        yield "empty", tensor[:0].clone()
    for at in range(1, tensor.ndim):
        yield f"larger in {at}", torch.cat([tensor, tensor.narrow(at, 0, 1)], dim=at)
    if not tensor.numel():
        return  # there are no values to change
    if tensor.is_floating_point():
        for value in (float("nan"), float("inf")):
            wrong = tensor.clone()
            wrong.view(-1)[-1:] = value
            yield f"{value}", wrong
        yield "integers", tensor.to(torch.int32)
    elif tensor.dtype == torch.int64:
        yield "floats", tensor.double() + 0.5
        yield "negative", tensor - 10_000
        yield "too large", tensor + 10_000


def refused(model, vae, path, image):
    """Load the file and run a step; return the error's message, or None where there is none."""
    try:
        load(when="every run")
        step(image, model, vae, **live_settings())
    except ValueError as error:
        return str(error)
    return None


def test_every_wrong_tensor_is_refused_by_name(saved, model, vae, streams):
    path, tensors, metadata = saved
    image = live_frames()[SAVED_AFTER][None]
    wrong = []
    for name, tensor in tensors.items():
        # Of the many attentions one stands for all.
        if "/memory/" in name and not any(
            p in name for p in ("down.0.1", "middle", "window", "sett")
        ):
            continue
        for what, changed in changes_of(name, tensor):
            others = {k: v for k, v in tensors.items() if k != name}
            new = others if changed is None else {**others, name: changed.contiguous()}
            save_file(new, str(path), metadata)
            streams.clear()
            said = refused(model, vae, path, image)
            if (said is None and not (what == "missing" and name in OPTIONAL)) or (
                said is not None and path.name not in said
            ):
                wrong.append((name, what, said))
    assert not wrong


def test_a_damaged_file_leaves_the_stream_that_is_there(model, vae, folders, streams):
    images = live_frames()
    for image in images[:SAVED_AFTER]:
        step(image[None], model, vae, **live_settings())
    save()
    path = folders / "output" / "live2diff" / LIVE
    state = load_file(path)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    state["picture"] = state["picture"] * float("nan")
    save_file(state, str(path), metadata)
    there = streams.get("live")
    step(images[SAVED_AFTER][None], model, vae, **live_settings())
    with pytest.raises(ValueError, match=f"{LIVE} is damaged.*'picture' holds NaN"):
        load(when="every run")
    assert streams.get("live") is there
    step(images[SAVED_AFTER + 1][None], model, vae, **live_settings())
    assert there.translator.session.frames_in == SAVED_AFTER + 2


def test_every_step_says_the_same_until_the_stream_is_reset(model, vae, folders, streams):
    """What the MODEL alone shows is said at the first step, and the models stay usable."""
    images, path = live_frames(), folders / "output" / "live2diff" / LIVE
    path.parent.mkdir()
    shutil.copy(FROZEN / "0.1.0" / LIVE, path)
    with safe_open(str(path), framework="pt") as file:
        state, metadata = {n: file.get_tensor(n) for n in file.keys()}, file.metadata()  # noqa: SIM118
    state["translator/session/flight.0.depth"] = torch.zeros(31, 8, 10)
    save_file(state, str(path), metadata)
    load()
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{LIVE} is damaged.*depth features of frame 6"):
            step(images[:1], model, vae, **live_settings())
    reset()
    assert step(images[:1], model, vae, **live_settings())[1:] == (-1, True)


@pytest.mark.parametrize(
    "settings, message",
    [
        ("{", "its settings cannot be read"),
        ("[1, 2]", "its settings are none"),
        ("7", "its settings are none"),
        ("[" * 100_000, "its settings cannot be read"),
        (None, "its settings cannot be read"),
        ('{"stream": [1], "prompt": "a"}', "its settings are none"),
        ('{"stream": {}, "prompt": 7}', "its prompt is none"),
        ('{"stream": {}}', "not a live stream"),
    ],
)
def test_metadata_that_is_none(model, vae, folders, settings, message):
    step(pictures(1), model, vae)
    save()
    path = folders / "output" / "live2diff" / LIVE
    with safe_open(str(path), framework="pt") as file:
        metadata = {**file.metadata(), "settings": settings}
    # Without its checksum, which covers the settings, too.
    del metadata["checksum"]
    if settings is None:
        del metadata["settings"]
    save_file(load_file(path), str(path), metadata)
    with pytest.raises(ValueError, match=message) as caught:
        load(when="every run")
    assert path.name in str(caught.value)


def test_another_format_is_named_with_its_file(pack, folders):
    save_file({"a": torch.zeros(1)}, str(folders / "input" / LIVE), {"format": "something"})
    with pytest.raises(ValueError, match=f"{LIVE}: this is not a saved stream.*'something'"):
        load(folder="input")


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_streams_are_saved_and_loaded_at_any_frame(sd15, motion, vae, folders, streams, frames):
    """While warming up, too, when hardly anything is in the state."""
    model, images = banked(patched(sd15, motion, 4, 3), kind="queue"), pictures(frames + 1)
    step(images[:frames], model, vae)
    save()
    expected = step(images[frames:], model, vae)[0]
    load(when="every run")
    assert torch.equal(step(images[frames:], model, vae)[0], expected)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("name", ["inside", "translator/session/counters", "picture of nan"])
def test_a_damaged_state_of_a_video_is_told_and_costs_no_wrong_frame(
    sd15, folders, caplog, name, listed
):
    """Also where the file does not list its tensors, as version 0.1.0 did not."""
    calls, clip = Calls(sd15), block_clip(folders, range(9))
    whole = translated(clip, sd15)
    with calls.stopping_at(8), pytest.raises(StoppedError):
        translated(clip, sd15)
    *_, path = sorted((folders / "output").glob("live2diff_partial/*/state_*.safetensors"))
    state = load_file(path)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    if not listed:
        del metadata["contents"], metadata["checksum"]
    if name in state:
        del state[name]
    else:
        state["translator/session/flight.0.latent"][:] = float("nan")
    save_file(state, str(path), metadata)
    assert torch.equal(translated(clip, sd15), whole)
    assert f"{path.name} is damaged" in caplog.text and f"{path.name}.aside" in caplog.text

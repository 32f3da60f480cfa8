"""Idle live streams make room for other models, and go on as if nothing had happened."""

import gc
import threading
import weakref

import comfy.model_management
import comfy.model_patcher
import pytest
import torch
from host_bank import banked
from host_stream import core, patched
from live_stream_inputs import load, pictures, reset, save, step, stream
from pretended_device import AWAY, Away
from pretended_host import CPU, PretendedHost

pytestmark = pytest.mark.usefixtures("folders")
COUNT = 7
MEMORIES = {
    "motion module": lambda model, motion: patched(model, motion, 4, 2),
    "feature bank": lambda model, motion: banked(model),
    "no memory": lambda model, motion: model,
}


@pytest.fixture(params=[False, True], ids=["normal", "novram"])
def low(request):
    return request.param


@pytest.fixture
def host(monkeypatch):
    with PretendedHost(monkeypatch) as host:
        yield host


@pytest.fixture
def model(sd15, motion, host):
    model = patched(sd15, motion, 4, 2)
    host.place(model)
    return model


def tensors(streams, name="live"):
    """What the stream's memory and the frames in flight hold."""
    state = streams.get(name).translator.session.state_dict()
    return [t for t in state.values() if t.is_floating_point() and t.dtype != torch.float64]


def places(streams, name="live"):
    return {tensor.device for tensor in tensors(streams, name)}


def listed():
    """The handles of live streams in the host's list."""
    held = core("host.held_state").HeldState
    return [m for m in comfy.model_management.loaded_models() if isinstance(m, held)]


def make_room():
    comfy.model_management.free_memory(1e30, AWAY)


@pytest.mark.parametrize("memory", MEMORIES)
def test_taken_and_brought_back_it_goes_on_the_same(
    sd15, motion, vae, monkeypatch, streams, memory, low
):
    model, images = MEMORIES[memory](sd15, motion), pictures(COUNT)
    expected = stream(images, model, vae)
    with PretendedHost(monkeypatch, low) as host:
        host.place(model)
        done = []
        for index, image in enumerate(images):
            result, first, _ = step(image[None], model, vae, finish=index == COUNT - 1)
            done += [result] if first >= 0 else []
            if index < COUNT - 1:
                assert places(streams) <= {AWAY}
                make_room()
                assert places(streams) <= {CPU} and not listed()
        assert torch.equal(torch.cat(done), expected)


def test_another_model_pushes_it_out(model, vae, streams, host):
    step(pictures(4), model, vae)
    (handle,) = listed()
    assert handle.loaded_size() == handle.model_size() == streams.get("live").nbytes > 0
    host.free = 0
    other = comfy.model_patcher.ModelPatcher(torch.nn.Linear(4, 4), AWAY, CPU)
    comfy.model_management.load_models_gpu([other])
    assert places(streams) == {CPU} and handle.loaded_size() == 0
    assert handle.model_size() == streams.get("live").nbytes
    host.free = None
    step(pictures(1), model, vae)
    assert places(streams) == {AWAY} and listed() == [handle]


def test_room_that_a_part_of_it_would_make_takes_it_whole(model, vae, streams, host):
    step(pictures(4), model, vae)
    (handle,) = listed()
    others = [m for m in comfy.model_management.current_loaded_models if m.model is not handle]
    host.free = 0
    comfy.model_management.free_memory(1000, AWAY, keep_loaded=others)
    # It stays in the list, as one that is not on the device.
    assert places(streams) == {CPU} and listed() == [handle]
    assert handle.current_loaded_device() == CPU
    host.free = None
    step(pictures(1), model, vae)
    assert places(streams) == {AWAY} and listed() == [handle]


@pytest.mark.parametrize("needed", [1000, 1e30])
def test_a_stream_at_work_is_not_taken(model, vae, streams, host, monkeypatch, needed):
    expected = stream(pictures(COUNT), model, vae, stream="other")
    step(pictures(COUNT)[:4], model, vae)
    (handle,) = listed()
    encode, asked = vae.first_stage_model.encode, []

    def and_make_room(pixels):
        management = comfy.model_management
        others = [m for m in management.current_loaded_models if m.model is not handle]
        host.free = 0
        management.free_memory(needed, AWAY, keep_loaded=others)
        host.free = None
        asked.append(places(streams))
        return encode(pixels)

    monkeypatch.setattr(vae.first_stage_model, "encode", and_make_room)
    result, _, _ = step(pictures(COUNT)[4:], model, vae, finish=True)
    assert asked == [{AWAY}] * 3
    assert torch.equal(result, expected[-len(result) :])


def test_afterwards_it_can_be_taken_again(model, vae, streams, host, monkeypatch):
    """Even if the host, in vain, has struck it off its list."""
    encode = vae.first_stage_model.encode
    step(pictures(4), model, vae)
    (handle,) = listed()

    def strike_off(pixels):
        loaded = comfy.model_management.current_loaded_models
        others = [m for m in loaded if m.model is not handle]
        comfy.model_management.free_memory(1e30, AWAY, keep_loaded=others)
        assert not listed()
        return encode(pixels)

    monkeypatch.setattr(vae.first_stage_model, "encode", strike_off)
    step(pictures(1), model, vae)
    assert listed() == [handle]
    make_room()
    assert places(streams) == {CPU}


@pytest.mark.parametrize("free", [None, 0], ids=["plenty", "none"])
def test_struck_off_it_comes_back_only_where_there_is_room(
    model, vae, streams, host, monkeypatch, free
):
    """To bring it back at once could unload the model that the next frame needs."""
    step(pictures(1), model, vae)
    handle, loaded = streams.get("live").handle, []
    with handle.in_use():
        comfy.model_management.current_loaded_models.clear()
        monkeypatch.setattr(comfy.model_management, "load_models_gpu", loaded.extend)
        host.free = free
    assert loaded == ([handle] if free is None else [])
    # The next run brings it back in any case.
    host.free, loaded[:] = None, []
    with handle.in_use():
        assert loaded == [handle]


def test_a_failed_run_leaves_it_to_the_host(model, vae, streams, monkeypatch):
    step(pictures(4), model, vae)
    monkeypatch.setattr(vae.first_stage_model, "encode", None)
    with pytest.raises(TypeError):
        step(pictures(1), model, vae)
    make_room()
    assert places(streams) == {CPU}


def test_what_no_longer_fits_is_refused_and_stays(model, vae, streams, host, monkeypatch):
    images = pictures(COUNT)
    expected = stream(images, model, vae, stream="other")
    step(images[:4], model, vae)
    make_room()
    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "get_total_memory", lambda *_, **__: 0)
        with pytest.raises(core("host.memory_need").StreamMemoryError, match="the stream's memory"):
            step(images[4:], model, vae)
    assert places(streams) == {CPU}
    result, _, _ = step(images[4:], model, vae, finish=True)
    assert torch.equal(result, expected[-len(result) :])


def test_its_bytes_are_not_reserved_twice(model, vae, streams, host):
    """A stream that was brought back needs no more room than one that stayed."""
    vae.memory_used_encode = vae.memory_used_decode = lambda shape, dtype: 0
    asked = []

    def note(executor, model, shape, *args, **kwargs):
        asked.append(shape[0])
        return executor(model, shape, *args, **kwargs)

    model.add_wrapper("prepare_sampling", note)
    for _ in range(3):
        step(pictures(2), model, vae)
    make_room()
    step(pictures(2), model, vae)
    assert asked[0] > asked[1] == asked[2] == asked[3]


# Streams that end


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("way", ["reset", "finish", "start over"])
def test_a_stream_that_ends_leaves_the_hosts_list(model, vae, streams, way, taken):
    step(pictures(4), model, vae)
    ended, count = weakref.ref(streams.get("live")), len(comfy.model_management.loaded_models())
    if taken:
        make_room()
    gc.disable()
    try:
        if way == "reset":
            reset()
        else:
            step(pictures(1), model, vae, **({"finish": True} if way == "finish" else {"seed": 8}))
        assert ended() is None
    finally:
        gc.enable()
    assert len(listed()) == (way == "start over")
    assert None not in comfy.model_management.loaded_models()
    assert taken or len(comfy.model_management.loaded_models()) == count - (way != "start over")


def test_a_stream_that_the_timer_drops_is_let_go_by_the_prompts_thread(model, vae, streams):
    """Its memory goes at once; its place in the host's list, which that thread owns, later."""
    step(pictures(4), model, vae, max_idle_minutes=1)
    ended = weakref.ref(streams.get("live"))
    streams._entries["live"].last_used -= 100
    thread = threading.Thread(target=streams._on_timer)
    thread.start()
    thread.join()
    assert ended() is None
    (handle,) = listed()
    assert handle.model_size() == handle.loaded_size() == 0
    del handle
    make_room()
    assert not listed()
    step(pictures(1), model, vae, stream="other")
    assert len(listed()) == 1 and None not in comfy.model_management.loaded_models()


# The other nodes


def test_saved_while_it_is_in_ram(model, vae, streams):
    images = pictures(COUNT)
    expected = stream(images, model, vae, stream="other")
    step(images[:4], model, vae)
    make_room()
    nbytes = streams.get("live").nbytes
    save()
    assert [info.nbytes for info in streams.streams()] == [nbytes]
    reset()
    load()
    result, _, _ = step(images[4:], model, vae, finish=True)
    assert torch.equal(result, expected[-len(result) :])


def test_the_state_is_moved_in_one_piece(model, vae, streams):
    """Nothing is left behind on the device."""
    step(pictures(4), model, vae)
    make_room()
    state = streams.get("live").state_dict()
    assert not [name for name, tensor in state.items() if isinstance(tensor, Away)]

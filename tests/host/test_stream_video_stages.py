"""Stream Video at work: models loaded once, and decoding, model and encoding side by side."""

import gc
import threading

import comfy.model_management
import folder_paths
import pytest
import torch
from host_stream import core, patched
from live_stream_inputs import TinyVAE
from stream_video import Calls, StoppedError, block_clip, translate_video, translated


@pytest.fixture(autouse=True)
def folders(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


class DepthNetwork(torch.nn.Module):
    """A depth network as the host loads it: brightness, weighted."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1) * 7)
        self.pretrained = torch.nn.Module()
        self.pretrained.activations = {}

    def forward(self, images):
        return images.mean(1) * self.weight + 8


@pytest.fixture
def loads(monkeypatch):
    """Networks of each time the host was asked to load models."""
    asked, load = [], comfy.model_management.load_models_gpu

    def note(models, *args, **more):
        asked.append({id(model.model) for model in models})
        return load(models, *args, **more)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", note)
    return asked


@pytest.mark.parametrize("count", [3, 9])
def test_models_are_loaded_once_however_many_frames(sd15, motion, folders, loads, count):
    vae, model = TinyVAE(), patched(sd15, motion, 4, 2)
    translate_video(block_clip(folders, range(count)), model, vae, checkpoint_every=2)
    (together,) = loads
    assert {id(vae.first_stage_model), id(sd15.model), id(motion.model)} <= together


@pytest.mark.parametrize("count", [3, 9])
def test_depth_is_loaded_with_them_and_not_again(sd15, motion, folders, loads, count):
    depth, model = core("depth.model").DepthModel(DepthNetwork()), patched(sd15, motion, 4, 2)
    clip = block_clip(folders, range(count))
    found = translated(clip, model, depth_model=depth)
    (together,) = loads
    assert {id(depth.patcher.model), id(model.model)} <= together
    assert not torch.equal(found, translated(clip, model))


def test_models_are_loaded_once_when_it_goes_on(sd15, folders, loads):
    calls, clip = Calls(sd15), block_clip(folders, range(9))
    with calls.stopping_at(6), pytest.raises(StoppedError):
        translate_video(clip, sd15)
    loads.clear()
    translate_video(clip, sd15)
    assert len(loads) == 1


@pytest.fixture
def stages(sd15, monkeypatch):
    """Call `stages[name]` with the number of each frame that comes to a stage, in its thread."""
    hooks = {}

    def counted(name, function):
        seen = iter(range(10_000))

        def call(*args, **more):
            hooks.get(name, lambda number: None)(next(seen))
            return function(*args, **more)

        return call

    plan, writer = core("video.frame_size").FrameSizePlan, core("video.writer").SegmentWriter
    monkeypatch.setattr(plan, "apply", counted("decode", plan.apply))
    monkeypatch.setattr(writer, "write", counted("encode", writer.write))
    Calls(sd15).then = counted("model", lambda number: None)
    return hooks


def test_three_frames_are_at_work_at_one_time(sd15, folders, stages):
    """The decoder is at frame 5 and the encoder at 1 while the model is at 3: each waits there
    for the other two."""
    meeting, threads = threading.Barrier(3, timeout=20), set()

    def meet(at):
        def wait(number):
            if number == at:
                threads.add(threading.current_thread().name.removesuffix("_0"))
                meeting.wait()

        return wait

    stages.update(decode=meet(5), model=meet(3), encode=meet(1))
    clip = block_clip(folders, range(10))
    # A checkpoint would wait for the encoder.
    found = translated(clip, sd15, denoise=0.25, checkpoint_every=0)
    assert len(found) == 10 and not meeting.broken
    assert threads == {"live2diff-decode", "live2diff-encode", threading.current_thread().name}


def test_every_thread_is_in_inference_mode(sd15, folders, stages):
    """It belongs to the thread; the host enters it for its own only."""
    modes = {"decode": [], "model": [], "encode": []}

    def note(name):
        return lambda number: modes[name].append(torch.is_inference_mode_enabled())

    stages.update({name: note(name) for name in modes})
    translated(block_clip(folders, range(6)), sd15, denoise=0.25)
    assert modes == {name: [True] * 6 for name in modes}


def test_an_error_in_any_stage_ends_the_run_with_it(sd15, folders, stages):
    for seed, name in enumerate(("decode", "model", "encode")):

        def fail(number):
            if number % 100 == 4:
                raise ArithmeticError(name)  # noqa: B023 (called before the next turn)

        stages.clear()
        stages[name] = fail
        with pytest.raises(ArithmeticError, match=name):
            clip = block_clip(folders, range(10), name=name)
            # Other inputs than before, which would go on where they stopped.
            translate_video(clip, sd15, denoise=0.25, seed=seed)
    # The noise maker ends with its stream, which the error kept alive; nobody waits for it.
    gc.collect()
    left = [t for t in threading.enumerate() if t.name.startswith("live2diff")]
    for thread in left:
        if thread.name == "live2diff-noise":
            thread.join(10)
    assert not [thread for thread in left if thread.is_alive()]

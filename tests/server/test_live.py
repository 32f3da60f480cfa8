"""Live streams on a real ComfyUI server: one prompt per frame, and what happens in between."""

import json
import time
import urllib.request

import numpy as np
import pytest
from live_graphs import SAMPLING, live2diff_models
from PIL import Image
from video_graphs import node

from folder_queue.errors import PromptError

pytestmark = pytest.mark.server

SIDE, COUNT = 64, 40


class Live:
    """Feeds frames of a clip in the server's input folder to one stream."""

    def __init__(self, server, clip, stream):
        self.server, self.clip, self.stream = server, clip, stream
        self.done = []

    def graph(self, first, count=1, **changes):
        inputs = {
            **SAMPLING,
            "vae": ["checkpoint", 2],
            "image": ["frame", 0],
            "stream": self.stream,
            "during_warmup": "pass through",
            "on_prompt_change": "keep cache",
            "finish": False,
            "max_idle_minutes": 30,
            "max_total_gb": 8.0,
            **changes,
        }
        return {
            **live2diff_models(),
            "clip": node("LoadImage", image=self.clip),
            "frame": node("ImageFromBatch", image=["clip", 0], batch_index=first, length=count),
            "step": node("Live2DiffStreamStep", **inputs),
            "save": node("SaveImage", images=["step", 0], filename_prefix="live"),
            "index": node("PreviewAny", source=["step", 1]),
            "warming_up": node("PreviewAny", source=["step", 2]),
        }

    def run(self, graph):
        """Run one prompt: (index, warming up), and its finished frames onto `done`."""
        result = self.server.client.run(graph)
        index, warming_up = (result.outputs[n]["text"][0] for n in ("index", "warming_up"))
        if int(index) >= 0:
            assert int(index) == len(self.done)
            self.done += [np.asarray(Image.open(path)) for path in result.files("save")]
        return int(index), warming_up == "True"

    def feed(self, frames, **changes):
        for index in frames:
            told = self.run(self.graph(index, **changes))
        return told


@pytest.fixture(scope="module")
def clip(comfy_server):
    """An animated PNG, which Load Image gives out as a batch."""
    ramp = np.linspace(0, 200, SIDE)
    frames = []
    for index in range(COUNT):
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        picture[..., 0], picture[..., 1] = ramp[None], ramp[:, None]
        picture[8:24, index : index + 16] = 255
        frames.append(Image.fromarray(picture))
    path = comfy_server.base / "input" / "live_clip.png"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path.name


@pytest.fixture(scope="module")
def expected(comfy_server, clip):
    """The clip through VAE Encode, Stream Sampler and VAE Decode."""
    graph = {
        **live2diff_models(),
        "clip": node("LoadImage", image=clip),
        "encode": node("VAEEncode", pixels=["clip", 0], vae=["checkpoint", 2]),
        "sample": node("Live2DiffStreamSampler", **SAMPLING, frames=["encode", 0]),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["checkpoint", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="reference"),
    }
    files = comfy_server.client.run(graph).files("save")
    frames = np.stack([np.asarray(Image.open(path)) for path in files])
    assert len(frames) == COUNT and len({frame.tobytes() for frame in frames}) == COUNT
    return frames


@pytest.fixture
def live(comfy_server, clip, request):
    """A stream of the test's own."""
    yield Live(comfy_server, clip, request.node.name)
    reset(comfy_server, "all")


def reset(server, name):
    graph = {"reset": node("Live2DiffResetStream", stream=name, reset=True)}
    server.client.run(graph)


def off(found, expected):
    """Most grey levels that any pixel differs by, over the frames found."""
    assert len(found) <= len(expected)
    return np.abs(np.stack(found).astype(int) - expected[: len(found)]).max()


def free(server):
    """Unload all models and forget all nodes' results, as the button in the browser does."""
    body = json.dumps({"unload_models": True, "free_memory": True}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/free", body, headers)):
        time.sleep(1)  # The server does it when its queue is idle.


def test_forty_prompts_equal_one_batch(live, expected):
    told = [live.run(live.graph(i, finish=i == COUNT - 1)) for i in range(COUNT)]
    assert told[:4] == [(-1, True), (0, False), (-1, False), (2, False)]
    assert len(live.done) == COUNT
    # One level: the VAE rounds a batch of frames and a single frame differently.
    assert off(live.done, expected) <= 1


@pytest.mark.thorough
def test_survives_other_workflows_and_an_unload(live, expected, comfy_server):
    live.feed(range(6))
    other = Live(comfy_server, live.clip, "other").graph(0)
    other["step"] = node("VAEEncode", pixels=["frame", 0], vae=["checkpoint", 2])
    other["save"] = node("SaveLatent", samples=["step", 0], filename_prefix="other")
    comfy_server.client.run({k: v for k, v in other.items() if k not in ("index", "warming_up")})
    live.feed(range(6, 8))
    free(comfy_server)
    result = comfy_server.client.run(live.graph(8))
    assert "checkpoint" in result.executed  # everything was loaded anew
    live.done += [np.asarray(Image.open(path)) for path in result.files("save")]
    live.feed(range(9, 12))
    assert len(live.done) == 11 and off(live.done, expected) <= 1
    assert f"'{live.stream}' starts over" not in comfy_server.log()


@pytest.mark.thorough
def test_interleaved_streams_are_those_alone(live, expected, comfy_server):
    other = Live(comfy_server, live.clip, f"{live.stream} other")
    for index in range(8):
        live.feed([index])
        other.feed([COUNT - 1 - index], seed=8)
    alone = Live(comfy_server, live.clip, f"{live.stream} alone")
    alone.feed([COUNT - 1 - index for index in range(8)], seed=8)
    assert off(live.done, expected) <= 1
    assert (np.stack(other.done) == np.stack(alone.done)).all()


def test_another_size_warms_up_again_and_says_so(live, comfy_server):
    live.feed(range(4))
    graph = live.graph(4)
    graph["scale"] = node(
        "ImageScale",
        image=["frame", 0],
        upscale_method="bilinear",
        width=128,
        height=SIDE,
        crop="disabled",
    )
    graph["step"]["inputs"]["image"] = ["scale", 0]
    live.done = []
    assert live.run(graph) == (-1, True)
    assert live.run(graph) == (0, False) and live.done[0].shape == (SIDE, 128, 3)
    assert f"'{live.stream}' starts over: size 64x64 -> 128x64" in comfy_server.log()


@pytest.mark.thorough
def test_saved_streams_go_on_after_a_restart(live, expected, comfy_server):
    """In one graph: frame, Load Stream (once), Stream Step; saved from a graph of its own."""
    live.feed(range(5))
    saving = node("Live2DiffSaveStream", stream=live.stream, file_name="kept")
    comfy_server.client.run({"save": saving})
    live.feed(range(7, 9))
    reset(comfy_server, live.stream)
    for _ in range(2):
        live.done = live.done[:4]
        for index in range(5, 8):
            graph = live.graph(index)
            graph["load"] = node(
                "Live2DiffLoadStream",
                file="kept.safetensors [output]",
                stream=live.stream,
                when="once",
                after=["frame", 0],
            )
            graph["step"]["inputs"]["image"] = ["load", 0]
            live.run(graph)
        assert len(live.done) == 7 and off(live.done, expected) <= 1
        comfy_server.stop()
        comfy_server.start()


def test_wrong_settings_and_names(live, comfy_server):
    live.feed([0])
    saving = {"save": node("Live2DiffSaveStream", stream=live.stream, file_name="../../x")}
    with pytest.raises(PromptError, match="cannot be the name of a saved stream"):
        comfy_server.client.run(saving)
    saving["save"]["inputs"]["file_name"] = "wrong"
    comfy_server.client.run(saving)
    loading = node(
        "Live2DiffLoadStream",
        file="wrong.safetensors [output]",
        stream=live.stream,
        when="every run",
    )
    comfy_server.client.run({"load": loading})
    with pytest.raises(PromptError, match="made with other settings: seed 7 -> 8"):
        live.feed([1], seed=8)
    loading["inputs"]["file"] = "../live_clip.png [input]"
    with pytest.raises(PromptError, match="no saved stream"):
        comfy_server.client.run({"load": loading})


def test_a_batch_of_control_images_is_refused(live, comfy_server):
    graph = live.graph(0, positive=["control", 0])
    graph["net"] = node(
        "ControlNetLoader", control_net_name="control_v11p_sd15_canny_fp16.safetensors"
    )
    graph["control"] = node(
        "ControlNetApplyAdvanced",
        positive=["positive", 0],
        negative=["positive", 0],
        control_net=["net", 0],
        image=["clip", 0],
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    with pytest.raises(PromptError, match="for each of this run's frames.*got 40 images for 1"):
        comfy_server.client.run(graph)
    graph["control"]["inputs"]["image"] = ["frame", 0]
    assert live.run(graph) == (-1, True)

"""However a stream is cut, on a real server: the same frames, the same numbers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import make_lossless
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_graphs import SAMPLING, live2diff_models
from PIL import Image
from safetensors.torch import load_file
from video_graphs import decode, node, saved, video_graph

pytestmark = pytest.mark.server

SUPPORT = Path(__file__).resolve().parents[1] / "support"
SIDE = 64
BANK = node(
    "Live2DiffApplyFeatureBank",
    model=["live2diff", 0],
    bank="merge",
    queue_frames=2,
    interval=4,
    fusion_strength=0.4,
    similarity_threshold=0.9,
    fuse="middle, up 2",
    extend="all",
)
# What one-frame and whole-clip runs of the VAE may differ by.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def server(comfy_server):
    """The server, with the node that gives out what IMAGEs hold."""
    shutil.copy(SUPPORT / "probe_nodes.py", comfy_server.base / "custom_nodes")
    comfy_server.stop()
    comfy_server.start()
    yield comfy_server
    reset(comfy_server)


def reset(server):
    server.client.run({"reset": node("Live2DiffResetStream", stream="all", reset=True)})


def make_clip(server, count, seed):
    """A random clip as an animated PNG, which Load Image gives out as a batch; its pictures."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(p).resize((SIDE, SIDE), Image.BICUBIC) for p in coarse]
    path = server.base / "input" / f"cut-{count}-{seed}.png"
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    return path.name, np.stack([np.asarray(picture) for picture in pictures])


def models(bank=True):
    """Loaders, the prompt, and a MODEL with both memories, or with the motion module alone."""
    nodes = live2diff_models()
    # The bank is expensive on a CPU: long streams go without it.
    return nodes if not bank else nodes | {"live2diff": nodes["apply"], "apply": BANK}


def sampled(server, clip, bank=True):
    """The clip through VAE Encode, Stream Sampler and VAE Decode: [F, H, W, 3] in 0..1."""
    graph = {
        **models(bank),
        "clip": node("LoadImage", image=clip),
        "encode": node("VAEEncode", pixels=["clip", 0], vae=["checkpoint", 2]),
        "sample": node("Live2DiffStreamSampler", **SAMPLING, frames=["encode", 0]),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["checkpoint", 2]),
        "probe": node("ProbeSavePictures", images=["decode", 0], name="sampled"),
    }
    return probed(server.client.run(graph), "probe")


def probed(result, name):
    return load_file(result.outputs[name]["text"][0])["images"]


def stepped(server, clip, first, count, finish, load=None, bank=True):
    """Push some frames of the clip in one prompt; the finished ones, or none."""
    graph = {
        **models(bank),
        "clip": node("LoadImage", image=clip),
        "frame": node("ImageFromBatch", image=["clip", 0], batch_index=first, length=count),
        "step": node(
            "Live2DiffStreamStep",
            **SAMPLING,
            vae=["checkpoint", 2],
            image=["frame", 0],
            stream="cut",
            during_warmup="pass through",
            on_prompt_change="keep cache",
            finish=finish,
            max_idle_minutes=30,
            max_total_gb=8.0,
        ),
        "index": node("PreviewAny", source=["step", 1]),
        "probe": node("ProbeSavePictures", images=["step", 0], name="stepped"),
    }
    if load is not None:
        graph["load"] = load
        graph["step"]["inputs"]["image"] = ["load", 0]
    result = server.client.run(graph)
    return [] if result.outputs["index"]["text"][0] == "-1" else list(probed(result, "probe"))


def save_and_load(server, restart):
    """Save the stream and lose it; the node that brings it back, before the frame goes in."""
    save = node("Live2DiffSaveStream", stream="cut", file_name="cut")
    server.client.run({"save": save})
    if restart:
        server.stop()
        server.start()
    else:
        reset(server)
    return node(
        "Live2DiffLoadStream",
        file="cut.safetensors [output]",
        stream="cut",
        when="once",
        after=["frame", 0],
    )


@pytest.mark.fuzz
@settings(deadline=None, max_examples=2, suppress_health_check=list(HealthCheck), print_blob=True)
@given(
    cuts=st.lists(st.integers(1, 8), min_size=3, max_size=7),
    data=st.data(),
    seed=st.integers(0, 999),
)
def test_random_cuts_saves_and_a_restart_change_nothing(server, cuts, data, seed):
    between = st.integers(1, len(cuts) - 1)
    saves, restart = data.draw(st.sets(between, max_size=3)), data.draw(between)
    clip, _ = make_clip(server, sum(cuts), seed)
    reset(server)
    found, first = [], 0
    for index, count in enumerate(cuts):
        load = None
        if index in {*saves, restart}:
            load = save_and_load(server, restart=index == restart)
        found += stepped(server, clip, first, count, index == len(cuts) - 1, load)
        first += count
    expected = sampled(server, clip)
    assert len(found) == len(expected) == sum(cuts)
    assert (torch.stack(found) - expected).abs().max() <= ROUNDING


@pytest.mark.parametrize(
    "count",
    [pytest.param(50, marks=pytest.mark.thorough), pytest.param(200, marks=pytest.mark.marathon)],
)
def test_frames_one_by_one_equal_sampler_and_video(server, tmp_path, count):
    clip, pictures = make_clip(server, count, seed=1)
    reset(server)
    found = []
    for index in range(count):
        found += stepped(server, clip, index, 1, index == count - 1, bank=False)
    found = torch.stack(found)
    assert (found - sampled(server, clip, bank=False)).abs().max() <= ROUNDING
    graph = video_graph(server, make_lossless(tmp_path, pictures), seed=SAMPLING["seed"])
    graph |= models(bank=False)
    _, video = decode(saved(server, graph))
    # Both put single frames through the VAE: what is left is rounding to 8 bits.
    assert (video == found.mul(255).round().to(torch.uint8).numpy()).all()

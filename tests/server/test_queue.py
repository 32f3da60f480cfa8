"""The nodes in a real ComfyUI server, queued over HTTP."""

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from folder_queue.errors import PromptError

pytestmark = pytest.mark.server
ROOT = Path(__file__).resolve().parents[2]

Graph = dict[str, dict[str, Any]]
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def stream_graph(frames: int, seed: int = 7, **sampler: Any) -> Graph:
    """Grey frames of 64x64 through the Stream Sampler into PNGs; `sampler` overrides its inputs."""
    inputs = {
        "model": ["apply", 0],
        "positive": ["positive", 0],
        "negative": ["positive", 0],
        "frames": ["encode", 0],
        "seed": seed,
        "steps": 4,
        "denoise": 0.5,
        "cfg": 1.0,
    }
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "motion": node("Live2DiffLoadMotionModule", motion_module="live2diff.ckpt"),
        "apply": node("Live2DiffApply", model=["checkpoint", 0], motion_module=["motion", 0]),
        "positive": node("CLIPTextEncode", clip=["checkpoint", 1], text="a painting"),
        "image": node("EmptyImage", width=64, height=64, batch_size=frames, color=0x406080),
        "encode": node("VAEEncode", pixels=["image", 0], vae=["checkpoint", 2]),
        "sample": node("Live2DiffStreamSampler", **{**inputs, **sampler}),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["checkpoint", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="stream"),
    }


def pictures(server, graph):
    """Run a graph and read its PNGs: [F, H, W, 3]."""
    return np.stack([np.asarray(Image.open(p)) for p in server.client.run(graph).files("save")])


def failure(server, graph):
    """Run a graph that must fail, and return the server's words."""
    with pytest.raises(PromptError) as caught:
        server.client.run(graph)
    return str(caught.value)


def test_nodes_are_there_with_names_and_tooltips(comfy_server):
    info = comfy_server.client.get("/object_info")
    ours = {name: entry for name, entry in info.items() if name.startswith("Live2Diff")}
    assert set(ours) == {page.stem for page in (ROOT / "web" / "docs").glob("*.md")}
    for name, entry in ours.items():
        assert entry["category"] == "Live2Diff" and entry["description"], name
        for group in entry["input"].values():
            for key, (_, options) in ((k, v) for k, v in group.items() if len(v) == 2):
                assert options.get("tooltip"), f"{name}.{key}"


@pytest.mark.parametrize(
    "frames", [1, 12, *(pytest.param(count, marks=pytest.mark.thorough) for count in (5, 8, 9))]
)
def test_as_many_frames_out_as_in(comfy_server, frames):
    result = pictures(comfy_server, stream_graph(frames))
    assert len(result) == frames
    assert len({hashlib.sha256(frame.tobytes()).hexdigest() for frame in result}) == frames


@pytest.mark.thorough
def test_a_longer_clip_begins_like_a_shorter_one(comfy_server):
    short = pictures(comfy_server, stream_graph(10))
    long = pictures(comfy_server, stream_graph(12))
    assert np.abs(short.astype(int) - long[:10]).max() <= 1  # one grey level of rounding


def test_seed_changes_the_result_and_repeats(comfy_server):
    first = pictures(comfy_server, stream_graph(2, seed=1))
    other = pictures(comfy_server, stream_graph(2, seed=2))
    again = pictures(comfy_server, stream_graph(2, seed=1))
    assert (first != other).any()
    assert (first == again).all()


@pytest.mark.thorough
def test_lora_before_or_after_is_the_same(comfy_server):
    lora = {"lora_name": "your-style-lora.safetensors", "strength_model": 1.0}
    plain = stream_graph(9)
    before = stream_graph(9)
    before["lora"] = node("LoraLoaderModelOnly", model=["checkpoint", 0], **lora)
    before["apply"]["inputs"]["model"] = ["lora", 0]
    after = stream_graph(9, model=["lora", 0])
    after["lora"] = node("LoraLoaderModelOnly", model=["apply", 0], **lora)
    results = [pictures(comfy_server, graph) for graph in (plain, before, after)]
    assert (results[1] == results[2]).all()
    assert (results[0] != results[1]).any()


def test_plain_model_streams_frame_by_frame(comfy_server):
    assert len(pictures(comfy_server, stream_graph(3, model=["checkpoint", 0]))) == 3


@pytest.mark.thorough
def test_sigmas_replace_steps(comfy_server):
    graph = stream_graph(9, sigmas=["sigmas", 0], steps=1, denoise=1.0)
    graph["sigmas"] = node(
        "BasicScheduler", model=["apply", 0], scheduler="normal", steps=3, denoise=0.6
    )
    assert len(pictures(comfy_server, graph)) == 9


def test_settings_and_guidance(comfy_server):
    graph = stream_graph(6, cfg=2.0, negative=["negative", 0])
    graph["negative"] = node("CLIPTextEncode", clip=["checkpoint", 1], text="grey")
    graph["settings"] = node(
        "Live2DiffSettings", warmup_frames=2, window_size=4, attention_mode="causal_warmup"
    )
    graph["apply"]["inputs"]["settings"] = ["settings", 0]
    assert len(pictures(comfy_server, graph)) == 6


def test_stock_sampler_names_the_right_node(comfy_server):
    graph = stream_graph(2)
    graph["sample"] = node(
        "KSampler",
        **{k: graph["sample"]["inputs"][k] for k in ("model", "positive", "negative", "seed")},
        **{"steps": 2, "cfg": 1.0, "denoise": 0.5, "latent_image": ["encode", 0]},
        sampler_name="euler",
        scheduler="normal",
    )
    assert "Stream Sampler" in failure(comfy_server, graph)
    # The failure leaves nothing behind in the UNet that all of them share.
    graph["sample"]["inputs"]["model"] = ["checkpoint", 0]
    assert len(pictures(comfy_server, graph)) == 2


def test_depth_of_another_length_is_refused(comfy_server):
    graph = stream_graph(3, depth=["depth", 0])
    graph["few"] = node("EmptyImage", width=64, height=64, batch_size=2, color=0)
    graph["depth"] = node("VAEEncode", pixels=["few", 0], vae=["checkpoint", 2])
    assert "2 depth latents came for 3 frames" in failure(comfy_server, graph)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 2, "denoise": 0.3}, "leave no denoising step"),
        ({"steps": 20, "denoise": 0.9}, "18 denoising steps"),
    ],
)
def test_schedules_that_cannot_run(comfy_server, changes, words):
    assert words in failure(comfy_server, stream_graph(2, **changes))


def test_window_longer_than_the_position_table(comfy_server):
    graph = stream_graph(2)
    graph["settings"] = node(
        "Live2DiffSettings", warmup_frames=8, window_size=30, attention_mode="causal_warmup"
    )
    graph["apply"]["inputs"]["settings"] = ["settings", 0]
    assert "24" in failure(comfy_server, graph)


def test_unknown_motion_module_is_refused_when_queued(comfy_server):
    graph = stream_graph(1)
    graph["motion"]["inputs"]["motion_module"] = "nothing.ckpt"
    assert "nothing.ckpt" in failure(comfy_server, graph)


def test_interrupt_stops_at_once_and_leaves_the_server_fit(comfy_server):
    seen = []

    def stop_early(progress):
        if progress.node_id == "sample" and not seen:
            seen.append(progress)
            threading.Thread(target=comfy_server.client.interrupt).start()

    with pytest.raises(PromptError, match="interrupted"):
        comfy_server.client.run(stream_graph(400, seed=11), stop_early)
    assert seen[0].total == 400
    assert len(pictures(comfy_server, stream_graph(9, seed=12))) == 9


def test_cache_size_is_logged(comfy_server):
    pictures(comfy_server, stream_graph(1, seed=99))
    assert "Live2Diff: the stream's memory takes" in comfy_server.log()

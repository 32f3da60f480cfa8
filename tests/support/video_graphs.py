"""Graphs for Stream Video on a real server, and what comes out of them."""

import shutil

import av
import numpy as np

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def video_graph(server, clip, **changes):
    """Graph that streams `clip`, copied into the server's input, at 64x64, losslessly."""
    shutil.copy(clip, server.base / "input" / clip.name)
    return stream_graph(node("LoadVideo", file=clip.name), **changes)


def stream_graph(load, **changes):
    """Graph that streams what the node `load` gives, at 64x64, losslessly."""
    inputs = {
        "model": ["apply", 0],
        "vae": ["checkpoint", 2],
        "positive": ["positive", 0],
        "negative": ["positive", 0],
        "video": ["load", 0],
        "seed": 5,
        "steps": 4,
        "denoise": 0.5,
        "cfg": 1.0,
        "size": "fill",
        "width": 64,
        "height": 64,
        "codec": "lossless",
        "crf": 18,
        "checkpoint_every": 5,
    }
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "motion": node("Live2DiffLoadMotionModule", motion_module="live2diff.ckpt"),
        "apply": node("Live2DiffApply", model=["checkpoint", 0], motion_module=["motion", 0]),
        "positive": node("CLIPTextEncode", clip=["checkpoint", 1], text="a painting"),
        "load": load,
        "stream": node("Live2DiffStreamVideo", **{**inputs, **changes}),
        "save": node(
            "SaveVideo", video=["stream", 0], filename_prefix="v", format="auto", codec="auto"
        ),
    }


def partial_root(server):
    """The server's folder of partial results."""
    return server.base / "output" / "live2diff_partial"


def saved(server, graph):
    (path,) = server.client.run(graph).files("save")
    return path


def decode(path):
    """Times and frames [F, H, W, 3] of a video."""
    with av.open(str(path)) as container:
        frames = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    return [time for time, _ in frames], np.stack([image for _, image in frames])

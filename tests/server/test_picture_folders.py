"""Folders of numbered pictures in a real ComfyUI server: Video From Folder, and what follows."""

import clips
import numpy as np
import pytest
from PIL import Image
from video_graphs import decode, node, saved, stream_graph

pytestmark = pytest.mark.server
RATE = 10.0


@pytest.fixture(scope="module")
def shots(comfy_server):
    """Two picture sequences in the server's input, by the number of their frames.

    The first has odd sides, which core cannot encode: the pictures themselves must be read.
    """
    folder = comfy_server.base / "input" / "shots"
    folder.mkdir()
    for frames, size in ((1, (65, 49)), (11, clips.SIZE)):
        clips.make_pictures(folder, frames=frames, size=size).rename(folder / f"shot{frames}")
    return folder


def load(index, folder="shots"):
    return node(
        "Live2DiffVideoFromFolder", folder=folder, pattern="*.mp4", index=index, frame_rate=RATE
    )


@pytest.mark.parametrize(("index", "frames"), [(0, 1), (1, 11)])
def test_every_picture_becomes_a_frame_of_the_result(comfy_server, shots, index, frames):
    graph = stream_graph(load(index))
    # Named after the folder of its pictures.
    graph["save"]["inputs"]["filename_prefix"] = ["load", 1]
    path = saved(comfy_server, graph)
    assert path.name.startswith(f"shot{frames}_")
    times, images = decode(path)
    assert images.shape == (frames, 64, 64, 3)
    assert times == pytest.approx([number / RATE for number in range(frames)], abs=1e-3)


def test_core_reads_the_pictures_too(comfy_server, shots):
    graph = {
        "load": load(0, "shots/shot11"),
        "parts": node("GetVideoComponents", video=["load", 0]),
        "images": node("SaveImage", images=["parts", 0], filename_prefix="parts"),
        "save": node(
            "SaveVideo", video=["load", 0], filename_prefix="same", format="auto", codec="auto"
        ),
    }
    result = comfy_server.client.run(graph)
    found = [np.asarray(Image.open(file)) for file in result.files("images")]
    assert np.array_equal(found, [clips.picture(number) for number in range(11)])
    times, images = decode(*result.files("save"))
    assert [clips.number_of(image) for image in images] == list(range(11))
    assert times == pytest.approx([number / RATE for number in range(11)], abs=1e-3)

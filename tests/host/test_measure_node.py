"""Measure Video as ComfyUI calls it, and the networks that it measures with."""

import json
import sys
from importlib import import_module

import comfy.clip_vision
import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import pytest
import rendered_clips as rendered
import torch
from clips import make_clip, make_lossless, make_pictures
from comfy_api.latest import InputImpl
from host_stream import core, node
from torch import nn

FRAMES = 4
CLIP_CONFIG = {
    "hidden_act": "quick_gelu",
    "hidden_size": 16,
    "image_size": 28,
    "intermediate_size": 32,
    "model_type": "clip_vision_model",
    "num_attention_heads": 2,
    "num_channels": 3,
    "num_hidden_layers": 2,
    "patch_size": 14,
    "projection_dim": 8,
}


@pytest.fixture
def shown(pack, monkeypatch):
    """What the node shows of itself."""
    told = []
    module = import_module(f"{pack.__name__}.nodes.measure")
    monkeypatch.setattr(module, "show_text", lambda node_id, text: told.append(text))
    return told


@pytest.fixture(autouse=True)
def no_weights(pack, monkeypatch, tmp_path):
    """An empty models/optical_flow, which a developer's ComfyUI may not have."""
    folders = {**folder_paths.folder_names_and_paths, "optical_flow": ([str(tmp_path)], {".pth"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folders)
    return tmp_path


@torch.inference_mode()
def measured(before, after, **inputs):
    """Run the node with its defaults; return text, values of the JSON, plot and slice."""
    inputs = {"flow": "none", "row": 0.5, "match_size": False, **inputs}
    execute = node("measure", "Live2DiffMeasureVideo").execute
    text, found, plot, xt = execute(input_video=before, output_video=after, **inputs).args
    return text, json.loads(found), plot, xt


def images(pictures):
    return torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255


def video(folder, pictures, name="clip.mkv"):
    return InputImpl.VideoFromFile(str(make_lossless(folder, pictures, name)))


def test_images_are_measured(pack, shown):
    clip = rendered.moving_square(FRAMES).frames
    text, told, plot, xt = measured(images(clip), images(clip // 2), flow="DIS", row=0.25)
    metrics = told["metrics"]
    assert told["frames"] == FRAMES and (told["width"], told["height"]) == rendered.SIZE
    assert metrics["flicker"] < 1e-3 and metrics["warp_error"] < 1e-3 and metrics["mawe"] > 0
    assert shown == [text] and "Optical flow: OpenCV's DIS" in text
    assert told["notes"]["Not measured, CLIP score"] == "it needs a CLIP vision model."
    for image in (plot, xt):
        assert image.dtype == torch.float32 and image.ndim == 4 and image.shape[::3] == (1, 3)
        assert 0 <= image.min() and image.max() <= 1
    row = torch.cat([images(clip)[0, 20], torch.ones(8, 3), images(clip // 2)[0, 20]])
    assert torch.equal(xt[0, 0], row)


def test_videos_and_images_measure_the_same(tmp_path):
    clip = rendered.moving_square(FRAMES).frames
    changed = rendered.brighter(clip // 2, 9)
    expected = measured(images(clip), images(changed))[1]
    assert expected["metrics"]["flicker"] == pytest.approx(9 / 255)
    before, after = video(tmp_path, clip, "a.mkv"), video(tmp_path, changed, "b.mkv")
    assert measured(before, after)[1] == expected
    assert measured(before, images(changed))[1] == expected
    # Between two levels the nearer one counts, as where frames are saved.
    between = torch.tensor([-0.4, 0.4, -0.4, 0.4])[:, None, None, None] / 255
    assert measured(before, images(changed) + between)[1] == expected


def test_a_trimmed_video_is_measured_as_trimmed(tmp_path):
    clip = rendered.moving_square(6).frames
    whole = video(tmp_path, clip)
    if not hasattr(whole, "as_trimmed"):
        pytest.skip("this host does not trim videos")
    trimmed = whole.as_trimmed(2 / 24, 3 / 24, strict_duration=False)
    assert measured(trimmed, images(clip[2:5]))[1]["metrics"]["flicker"] == 0


def test_a_folder_of_pictures_is_measured(pack, tmp_path):
    picture_video = import_module(f"{pack.__name__}.nodes.picture_video")
    pictures = picture_video.PictureVideo(str(make_pictures(tmp_path, frames=3)), 24.0)
    batch = pictures.get_components().images
    assert measured(pictures, batch)[1] == measured(batch, batch)[1]
    # Its frame rate is its own, where it is trimmed.
    trimmed = picture_video.PictureVideo(pictures.folder, 2.0, start=0.5)
    assert measured(trimmed, batch[1:])[1]["frames"] == 2


def test_progress_is_shown(shown, monkeypatch):
    told = []

    class Bar:
        def __init__(self, total, node_id=None):
            self.total = total

        def update_absolute(self, done, total=None, preview=None):
            told.append((done, self.total))

    monkeypatch.setattr(comfy.utils, "ProgressBar", Bar)
    clip = images(rendered.still(3))
    measured(clip, clip)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_run_can_be_interrupted(monkeypatch):
    def interrupted():
        raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(
        comfy.model_management, "throw_exception_if_processing_interrupted", interrupted
    )
    clip = images(rendered.still(3))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        measured(clip, clip)


# Networks


class Brightness(nn.Module):
    """In place of DPT: near is bright."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.pretrained = type("", (), {"activations": {}})()

    def forward(self, frames):
        return (frames.mean(dim=1) + 1.0) ** 2 * self.scale


def test_depth_is_that_of_the_depth_model(pack):
    """A darker picture has the same depth, an inverted one another."""
    model = core("depth.model").DepthModel(Brightness())
    clip = rendered.still(2)
    clip[:, :2, :2], clip[:, -2:, -2:] = 0, 254
    same, inverted = (
        measured(images(clip), images(each), depth_model=model)[1]["metrics"]["depth_mse"]
        for each in (clip // 2, 255 - clip)
    )
    depths = [model.predict(images(each[:1]))[0] for each in (clip, 255 - clip)]
    stretched = [(depth - depth.min()) / (depth.max() - depth.min()) for depth in depths]
    expected = float((stretched[0] - stretched[1]).square().mean())
    assert same < 1e-4 and inverted == pytest.approx(expected, rel=1e-3) and expected > 0.01


@pytest.fixture
def clip_vision(tmp_path):
    """A CLIP_VISION of the host's own class, tiny and random."""
    path = tmp_path / "clip.json"
    path.write_text(json.dumps(CLIP_CONFIG), encoding="utf-8")
    model = comfy.clip_vision.ClipVisionModel(str(path))
    generator = torch.Generator().manual_seed(0)
    for weight in model.model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    return model


def test_clip_score_is_that_of_the_hosts_clip_vision(clip_vision):
    clip = images(np.concatenate([rendered.still(1, seed=seed) for seed in range(3)]))
    found = measured(clip, clip, clip_vision=clip_vision)[1]["metrics"]["clip_score"]
    with torch.inference_mode():
        embeddings = clip_vision.encode_image(clip)["image_embeds"]
    expected = 100 * torch.cosine_similarity(embeddings[1:], embeddings[:-1]).mean()
    assert found == pytest.approx(float(expected), abs=1e-3) and found < 99.99
    same = images(rendered.still(3))
    found = measured(same, same, clip_vision=clip_vision)[1]["metrics"]["clip_score"]
    assert found == pytest.approx(100)


def test_raft_is_found_in_the_hosts_folder(no_weights, monkeypatch):
    """With random weights; the file is loaded by the host, and never downloaded."""
    models = pytest.importorskip("torchvision.models.optical_flow")
    torch.manual_seed(0)
    torch.save(models.raft_large(weights=None).state_dict(), no_weights / "raft_large_random.pth")
    loaded = []
    load = comfy.model_management.load_models_gpu
    monkeypatch.setattr(
        comfy.model_management,
        "load_models_gpu",
        lambda models, **more: loaded.append(more) or load(models, **more),
    )
    chosen = core("metrics.instruments").choose_instruments(
        "auto", [no_weights], core("metrics.host_models").HostRAFT
    )
    assert chosen.notes["Optical flow"] == "RAFT-large"
    picture = rendered.still(1, size=(128, 128))[0]
    flow = chosen.flow(picture, picture)
    assert flow.shape == (128, 128, 2) and np.isfinite(flow).all()
    assert loaded == [{"memory_required": core("metrics.raft").WORKING_BYTES}]


def test_raft_that_is_not_there(no_weights):
    clip = images(rendered.still(2))
    with pytest.raises(FileNotFoundError, match=f"no file .* in {no_weights}.*choose DIS"):
        measured(clip, clip, flow="RAFT")


# What is refused, and what is missing


def test_videos_that_do_not_belong_together(tmp_path):
    frames = rendered.still(5)
    with pytest.raises(ValueError, match="The input has 5 frames, the output 3"):
        measured(images(frames), images(frames[:3]))
    with pytest.raises(ValueError, match="The output has 3 frames, the input more.*trim one"):
        measured(video(tmp_path, frames), images(frames[:3]))
    with pytest.raises(ValueError, match="input is 96x80 pixels, that of the output 64x80"):
        measured(images(frames), images(frames[:, :, :64]))
    with pytest.raises(ValueError, match=r"expected a VIDEO or an IMAGE batch.*got \[5, 80, 96\]"):
        measured(images(frames)[..., 0], images(frames))
    with pytest.raises(ValueError, match="videos have no frames"):
        measured(images(frames)[:0], images(frames)[:0])


def test_frames_that_are_no_pictures():
    broken = images(rendered.still(3))
    broken[1, 4, 4, 0] = float("nan")
    with pytest.raises(ValueError, match="frame 1 has NaN or infinite pixels.*--fp32-vae"):
        measured(images(rendered.still(3)), broken)


def test_the_input_is_scaled_and_cropped_as_by_stream_video(tmp_path, pack):
    """So that a result of Stream Video can be measured against its own input."""
    large = rendered.moving_square(3, size=(160, 96)).frames
    plan = core("video.frame_size").plan_frame_size(160, 96, "fill", 64, 64)
    small = np.stack([plan.apply(frame) for frame in large])
    for before in (images(large), video(tmp_path, large)):
        found = measured(before, images(small), match_size=True)
        assert (found[1]["width"], found[1]["height"]) == (64, 64)
        left, right = found[3][0, :, :64], found[3][0, :, -64:]
        assert torch.equal(left, right)


def test_without_opencv_and_pyscenedetect_the_rest_is_measured(monkeypatch, shown):
    for name in ("cv2", "scenedetect"):
        monkeypatch.setitem(sys.modules, name, None)
    clip = images(rendered.still(3))
    told = measured(clip, clip, flow="auto")[1]
    assert set(told["metrics"]) == {"flicker", "still_share"}
    assert "pip install opencv-python-headless" in shown[0]
    assert "pip install scenedetect-headless" in shown[0]
    with pytest.raises(ImportError, match="OpenCV, which is missing"):
        measured(clip, clip, flow="DIS")


def test_videos_with_sound_and_damage_are_read_as_by_stream_video(tmp_path):
    """Through the same reader: what an encoder changes is little."""
    path = make_clip(tmp_path, frames=5, sounds=["aac"])
    same = InputImpl.VideoFromFile(str(path))
    assert measured(same, InputImpl.VideoFromFile(str(path)))[1]["frames"] == 5

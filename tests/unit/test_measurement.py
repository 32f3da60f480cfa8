"""Measuring whole videos: all metrics in one pass, in constant memory, and what is refused."""

import json
import math
import sys
import tracemalloc
import weakref

import numpy as np
import pytest
import rendered_clips as rendered
import torch
from torch import nn

from live2diff_core.metrics import instruments, raft
from live2diff_core.metrics.flow import DISFlow
from live2diff_core.metrics.frames import MeasureError
from live2diff_core.metrics.measurement import Instruments, measure
from live2diff_core.metrics.names import METRICS
from live2diff_core.metrics.plot import PANEL, WIDTH, plot
from live2diff_core.metrics.raft import RAFTFlow, find_raft
from live2diff_core.metrics.report import as_dict, as_json, as_text, table
from live2diff_core.metrics.scene_cuts import SceneCuts
from live2diff_core.metrics.series import Series

FRAMES = 6


def brightness(pictures):
    """In place of a depth network: near is bright."""
    return pictures.astype(np.float32).mean(-1)


def colours(picture):
    """In place of CLIP: the mean colour."""
    return picture.astype(np.float32).mean((0, 1))


def no_flow(first, second):
    return np.zeros((*first.shape[:2], 2), np.float32)


def tools(**changes):
    return Instruments(
        **{"flow": no_flow, "depth": brightness, "clip": colours, "mawe_size": 32, **changes}
    )


@pytest.fixture(scope="module")
def dis():
    pytest.importorskip("cv2")
    return DISFlow()


# One pass


def test_a_video_measured_against_itself(dis):
    clip = rendered.moving_square(FRAMES)
    found = measure(clip.frames, clip.frames, tools(flow=dis, mawe_size=96))
    values = found.values
    assert (found.frames, found.width, found.height) == (FRAMES, *rendered.SIZE)
    assert values["depth_mse"] == values["flicker"] == 0
    assert values["clip_score"] == pytest.approx(100, abs=0.5)
    assert values["warp_error"] == values["warp_error_own_flow"] < 1e-3
    assert 0.6 < values["visible_share"] < 1 and 0.6 < values["still_share"] < 1
    assert 0 < values["mawe_paper"] and 0 < values["mawe"] and "scene_cuts" not in values


def test_flicker_raises_what_it_should_and_nothing_else(dis):
    clip = rendered.moving_square(FRAMES)
    darker = clip.frames // 2
    steady, flickers = (
        measure(clip.frames, frames, tools(flow=dis)).values
        for frames in (darker, rendered.brighter(darker, 25))
    )
    assert steady["flicker"] < 1e-3
    assert flickers["flicker"] == pytest.approx(25 / 255, rel=0.01)
    assert flickers["warp_error"] - steady["warp_error"] == pytest.approx((25 / 255) ** 2, rel=0.1)
    assert flickers["clip_score"] < steady["clip_score"] + 1e-6
    for name in ("depth_mse", "visible_share", "still_share"):
        assert flickers[name] == pytest.approx(steady[name], abs=1e-6)


def test_a_mean_is_over_frames_or_pairs():
    frames = rendered.brighter(rendered.still(FRAMES) // 2, 20)
    found = measure(rendered.still(FRAMES), frames, tools())
    assert found.series["flicker"].points[0].tolist() == [1, 2, 3, 4, 5]
    assert found.series["depth_mse"].points[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.values["flicker"] == pytest.approx(20 / 255)
    # Nothing moves, but pictures change.
    assert found.values["mawe"] == found.values["mawe_paper"] == math.inf
    assert as_dict(found)["metrics"]["mawe"] is None


def test_what_has_no_instrument_is_not_measured():
    frames = rendered.still(3)
    found = measure(frames, frames, Instruments())
    assert set(found.values) == {"flicker", "still_share"}


def test_the_slice_shows_both_videos():
    before, after = rendered.still(3), rendered.still(3, seed=1)
    image = measure(before, after, Instruments(row=0.25)).xt_slice
    width = rendered.SIZE[0]
    assert (image[0, :width] == before[0, 20]).all()
    assert (image[-1, -width:] == after[2, 20]).all()


# Constant memory


def turning(count):
    """As many frames as wanted, made when they are asked for."""
    picture = rendered.still(1, size=(48, 40))[0]
    for number in range(count):
        yield np.roll(picture, number, axis=1)


def test_300_frames_hold_as_much_as_30():
    held = {}

    def look(frame):
        if frame in (30, 300):
            # What the metrics hold. Smaller blocks are Python's own, which it keeps for reuse.
            ours = tracemalloc.Filter(True, "*/live2diff_core/metrics/*", all_frames=True)
            traces = tracemalloc.take_snapshot().filter_traces([ours]).traces
            held[frame] = sum(trace.size for trace in traces if trace.size > 512)

    tracemalloc.start(8)
    try:
        measure(turning(300), turning(300), tools(), look)
    finally:
        tracemalloc.stop()
    assert held[300] == held[30] > 0


class Tracked(np.ndarray):
    """An array whose end can be watched."""


def test_two_frames_of_each_video_are_held():
    now, most = [0, 0], [0, 0]

    def end(video):
        now[video] -= 1

    def watched(video):
        for picture in turning(50):
            frame = picture.view(Tracked)
            weakref.finalize(frame, end, video)
            now[video] += 1
            most[video] = max(now[video], most[video])
            yield frame

    measure(watched(0), watched(1), tools())
    assert most == [2, 2]


def test_numbers_do_not_drift_with_the_length(dis):
    """A clip that repeats has the same numbers, however often; but for the jumps in between."""
    short = np.concatenate([rendered.moving_square(3).frames] * 4)
    clips = short, np.concatenate([short] * 3)
    once, often = (measure(clip, clip // 2, Instruments(flow=dis, mawe_size=48)) for clip in clips)
    for name, value in once.values.items():
        assert often.values[name] == pytest.approx(value, rel=0.15), name


# What does not belong together


@pytest.mark.parametrize(
    "before, after, message",
    [
        (3, 5, "The input has 3 frames, the output more.*trim one of them"),
        (5, 3, "The output has 3 frames, the input more"),
        (0, 0, "have no frames"),
        (0, 2, "The input has 0 frames"),
    ],
)
def test_other_numbers_of_frames(before, after, message):
    frames = rendered.still(5)
    with pytest.raises(MeasureError, match=message):
        measure(frames[:before], frames[:after], tools())


def test_other_sizes():
    with pytest.raises(MeasureError, match=r"Frame 0 of the input is 96x80 .* output 64x80"):
        measure(rendered.still(2), rendered.still(2)[:, :, :64], tools())


def test_frames_too_small_for_flow(dis):
    tiny = rendered.still(2)[:, :8, :8]
    with pytest.raises(MeasureError, match="8x8 pixels are too small for optical flow"):
        measure(tiny, tiny, tools(flow=dis))


# Scene cuts


def scenes(*seeds, frames=20):
    return np.concatenate([rendered.translating(frames, (1, 0), seed).frames for seed in seeds])


def test_scene_cuts_are_counted_by_video():
    pytest.importorskip("scenedetect")
    one, three = scenes(1, 1, 1), scenes(1, 2, 3)
    # Another picture, not only another place in it.
    three[20:40] = 255 - three[20:40]
    one = np.concatenate([scenes(1, frames=60)])
    found = measure(one, three, Instruments(cuts=SceneCuts))
    assert found.values["scene_cuts_input"] == 0 and found.values["scene_cuts"] == 2


def test_scene_cuts_are_those_of_pyscenedetect(tmp_path, monkeypatch):
    """As its own reader and manager find them, at a size that both scale down."""
    scenedetect = pytest.importorskip("scenedetect")
    from clips import make_lossless

    frames = np.ascontiguousarray(scenes(1, 2, 3).repeat(5, 1).repeat(5, 2))
    frames[20:40] = 255 - frames[20:40]
    path = make_lossless(tmp_path, frames)
    detector = scenedetect.AdaptiveDetector
    process, seen = detector.process_frame, []

    def spied(self, timecode, frame_img):
        seen.append(frame_img)
        return process(self, timecode, frame_img)

    monkeypatch.setattr(detector, "process_frame", spied)
    expected = scenedetect.detect(str(path), scenedetect.AdaptiveDetector())
    counter = SceneCuts()
    for frame in frames:
        counter.add(frame)
    assert counter.count == len(expected) - 1 == 2
    theirs, ours = seen[: len(frames)], seen[len(frames) :]
    assert all((a == b).all() for a, b in zip(theirs, ours, strict=True))


# What is missing


@pytest.fixture
def without(monkeypatch):
    """Hide modules, as if they were not installed."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


def choose(flow="auto", folders=(), **more):
    return instruments.choose_instruments(flow, list(folders), lambda path: path, **more)


def test_without_opencv_the_rest_is_measured_and_the_report_says_so(without):
    without("cv2")
    chosen = choose(depth=brightness)
    frames = rendered.still(3)
    found = measure(frames, frames, chosen)
    assert set(found.values) == {"depth_mse", "flicker", "still_share"}
    text = as_text(found)
    assert "Not measured, warp errors and MAWE: Optical flow without RAFT's weights" in text
    assert "pip install opencv-python-headless" in text and "Not measured, CLIP score" in text
    with pytest.raises(ImportError, match="OpenCV, which is missing"):
        choose("DIS")
    assert choose("none").flow is None


def test_without_pyscenedetect_cuts_are_not_counted(without):
    without("scenedetect")
    chosen = choose("none")
    assert chosen.cuts is None
    assert "pip install scenedetect-headless" in chosen.notes["Not measured, scene cuts"]


def test_raft_is_used_where_its_weights_are(tmp_path, dis):
    assert find_raft([tmp_path / "nowhere", tmp_path]) is None
    assert choose("auto", [tmp_path]).flow.name == "OpenCV's DIS"
    with pytest.raises(FileNotFoundError, match=r"no file raft_large\*.pth in .*choose DIS"):
        choose("RAFT", [tmp_path])
    (tmp_path / "other.pth").touch()
    weights = tmp_path / "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
    weights.touch()
    assert choose("auto", [tmp_path]).flow == choose("RAFT", [tmp_path]).flow == weights
    assert choose("DIS", [tmp_path]).flow.name == "OpenCV's DIS"


# RAFT


def test_a_file_that_is_not_raft(tmp_path):
    pytest.importorskip("torchvision")
    path = tmp_path / "raft_large.pth"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="raft_large.pth cannot be used: .* Expected torchvision"):
        raft.load_raft(path)
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="is not RAFT-large"):
        raft.load_raft(path)


def test_raft_reads_torchvisions_file(tmp_path):
    models = pytest.importorskip("torchvision.models.optical_flow")
    torch.manual_seed(0)
    network = models.raft_large(weights=None).eval()
    path = tmp_path / "raft_large_stand_in.pth"
    torch.save(network.state_dict(), path)
    before, after = rendered.translating(2, size=(136, 128)).frames
    found = RAFTFlow(raft.load_raft(path))(before, after)
    pictures = (
        torch.from_numpy(each).permute(2, 0, 1)[None] / 127.5 - 1 for each in (before, after)
    )
    with torch.no_grad():
        expected = network(*pictures)[-1][0].permute(1, 2, 0).numpy()
    assert found.shape == (128, 136, 2) and np.abs(found - expected).max() < 1e-3


class ConstantFlow(nn.Module):
    """In place of RAFT: one pixel of its own to the right, two down; keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.weight, self.given = nn.Parameter(torch.zeros(1)), None

    def forward(self, first, second):
        self.given = first
        vectors = torch.tensor([1.0, 2.0])[None, :, None, None]
        return [vectors.expand(1, 2, *first.shape[2:])]


@pytest.mark.parametrize(
    "size, inner", [((160, 128), (160, 128)), ((100, 90), (128, 128)), ((1920, 1080), (960, 536))]
)
def test_flow_is_in_pixels_of_the_pictures(size, inner):
    network = ConstantFlow()
    picture = np.full((*size[::-1], 3), 255, np.uint8)
    found = RAFTFlow(network)(picture, picture)
    assert tuple(network.given.shape[2:]) == inner[::-1] and network.given.max() == 1
    assert found.shape == (*size[::-1], 2)
    assert np.allclose(found, [size[0] / inner[0], 2 * size[1] / inner[1]])


# Series, report, plot


def test_a_series_keeps_its_mean_in_a_bounded_number_of_points():
    values = np.random.default_rng(0).random(1000)
    short, long = Series(limit=16), Series(limit=2000)
    for frame, value in enumerate(values):
        short.add(frame, value)
        long.add(frame, value)
    assert short.mean == pytest.approx(values.mean()) == pytest.approx(long.mean)
    frames, means = short.points
    assert len(frames) <= 16 and (np.diff(frames) == 64).all()
    assert means[1] == pytest.approx(values[64:128].mean())
    assert (long.points[1] == values).all()


def test_a_series_leaves_out_what_is_no_number():
    series = Series()
    for frame, value in enumerate((None, math.inf, math.nan, 3.0)):
        series.add(frame, value)
    assert series.mean == 3 and series.points[0].tolist() == [3]
    assert Series().mean is None


def test_report_as_json_and_as_text(dis):
    clip = rendered.moving_square(3)
    found = measure(clip.frames, clip.frames // 2, tools(flow=dis, notes={"Optical flow": "DIS"}))
    told = json.loads(as_json(found))
    assert (told["frames"], told["width"], told["height"]) == (3, *rendered.SIZE)
    assert list(told["metrics"]) == [m.name for m in METRICS if m.name in found.values]
    assert told["metrics"] == pytest.approx(found.values)
    text = as_text(found)
    for metric in METRICS:
        assert (metric.title in text) == (metric.name in found.values)
    assert "Optical flow: DIS" in text and "96x80" in text
    both = table(["a.mp4", "b.mp4"], [found, found]).splitlines()
    assert both[0].split() == ["a.mp4", "b.mp4"] and both[1].split() == ["Frames", "3", "3"]


def test_plot_has_a_panel_per_series():
    frames = rendered.brighter(rendered.moving_square(FRAMES).frames // 2, 10)
    found = measure(rendered.moving_square(FRAMES).frames, frames, tools())
    shown = [name for name, series in found.series.items() if series.mean is not None]
    image = plot(found.series)
    assert image.shape == (len(shown) * PANEL, WIDTH, 3) and image.dtype == np.uint8
    for panel in range(len(shown)):
        assert (image[panel * PANEL : (panel + 1) * PANEL] == (31, 111, 180)).all(-1).any()
    assert plot({}).shape == (PANEL, WIDTH, 3)


def test_plot_of_a_single_pair():
    frames = rendered.still(2)
    image = plot(measure(frames, frames, Instruments()).series)
    assert (image[:PANEL] == (31, 111, 180)).all(-1).any()

"""`dev.py golden --device`: all that needs no GPU, with the CPU in its place."""

import os
import re

import pytest
import torch

from devtools import golden as golden_module
from devtools import golden_checks, golden_device
from devtools.golden_measures import Feed
from devtools.golden_models import random_motion, random_sd15


@pytest.fixture
def engine(golden, monkeypatch):
    # Two frames behind the warm-up of eight.
    monkeypatch.setattr(golden_checks, "WARM", 10)
    # Half precision takes minutes on the CPU; test_half_precision.py has a shorter way.
    build = golden_module.build_sd15
    monkeypatch.setattr(golden_module, "build_sd15", lambda path, device, *_: build(path, device))
    return golden[1]


@torch.inference_mode()
def test_all_checks_pass(engine, golden_folder):
    folders = [golden_folder, golden_folder.parent / "streamv2v"]
    lines = golden_checks.check_device(engine, folders, "cpu", None, frames=3, early=2)
    found = {text.split(":")[0]: passed for text, passed in lines}
    assert all(found.values())
    said = " ".join(found)
    for part in ("float32 live2diff trace-T4", "float32 streamv2v trace-dyme", "bytes at frame 2"):
        assert part in said
    for dtype in ("float16", "bfloat16"):
        for name in ("live2diff trace-T4", "streamv2v trace-dyme", "streamv2v trace-queue"):
            assert re.search(rf"{dtype} {name} 0\.\d+ of", said)
    for memory in ("live2diff", "merge", "queue"):
        assert f"{memory} waits of ours" in said


@torch.inference_mode()
def test_one_type_alone(engine, golden_folder):
    lines = golden_checks.check_device(
        engine, [golden_folder], "cpu", ["float16"], frames=3, early=2
    )
    said = [text for text, _ in lines]
    assert said[0].startswith("float16 live2diff") and "float32 " not in " ".join(said)


@torch.inference_mode()
def test_a_bound_that_is_passed_fails(engine, golden_folder, monkeypatch):
    monkeypatch.setitem(golden_checks.BOUNDS, "float16", -1e-6)
    (text, passed), *_ = golden_checks.check_device(
        engine, [golden_folder], "cpu", ["float16"], frames=3, early=2
    )
    assert not passed and "of -1e-06" in text


@torch.inference_mode()
def test_random_models_are_sd15s(engine):
    """At SD1.5's own width they have its numbers of weights; narrower ones stream."""
    model, motion = (
        random_sd15("cpu", torch.float32, 32),
        random_motion(engine, "cpu", torch.float32, 32),
    )
    window = engine.window.AttentionWindow(4, 2)
    applied = engine.live2diff_patch.apply_live2diff(model, motion, window)
    with Feed(engine, applied, (8, 8), 2, 768) as feed:
        finished = [x0 for _ in range(6) for x0 in feed.push()]
    assert len(finished) == 5 and all(x0.isfinite().all() for x0 in finished)


@torch.inference_mode()
def test_speed_table(engine, capsys, monkeypatch):
    monkeypatch.setattr(golden_device, "WARM", 1)
    golden_device.print_speed(engine, "cpu", ["float32"], "here ", width=32, side=64, frames=1)
    title, head, _, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("here frames per second") and head.count("T=") == 3
    assert [row.split("|")[1].strip() for row in rows] == [
        "none (StreamDiffusion)",
        "Live2Diff",
        "StreamV2V",
    ]
    assert all(float(cell) > 0 for row in rows for cell in row.split("|")[3:6])


def test_another_gpu_is_the_only_one_that_the_child_sees():
    """ComfyUI takes the first that it sees."""
    assert golden_device._env("cuda:1")["CUDA_VISIBLE_DEVICES"] == "1"
    here = golden_device._env("cuda").get("CUDA_VISIBLE_DEVICES")
    assert here == os.environ.get("CUDA_VISIBLE_DEVICES")

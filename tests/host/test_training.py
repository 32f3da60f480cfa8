"""Training runs of a narrow SD1.5, from videos to a motion-module file."""

import json

import pytest
import torch
from tiny_training import tiny_base, tiny_options, write_clip, write_clips


@pytest.fixture
def videos(tmp_path):
    return write_clips(tmp_path / "videos")


def run(tmp_path, base=None, **changes):
    """Train; return the module's tensors and the losses."""
    from training.config import make_config
    from training.loop import train

    config = make_config(tiny_options(tmp_path, **changes))
    points = {}
    path = train(config, base or tiny_base(config.depth), shown=points.__setitem__)
    return path, points


def test_a_run_ends_in_a_file_that_the_node_reads(tmp_path, videos):
    from live2diff_core.live2diff.motion_file import read_motion_file

    path, points = run(tmp_path)
    layout, tensors = read_motion_file(path)
    assert layout.down == ((32, 32), (64, 64), (128, 128), (128, 128))
    assert sorted(points) == [1, 2, 3]
    moved = [k for k, v in tensors.items() if k.endswith("proj_out.weight") and v.any()]
    assert len(moved) == 20

"""What the tables of docs/evidence.md are made of."""

import numpy as np
import pytest

from training.evidence import lasting, measuring, statistics
from training.evidence.cache_cost import Costs
from training.evidence.methods import METHODS, MODULES
from training.evidence.report import report


def flat_depth(pictures):
    return np.asarray(pictures)[..., 0].astype(np.float32)


@pytest.fixture(scope="module")
def clip():
    # Scenes are rendered from photographs of packages that only the sample model's makers need.
    from training.sample_model.scenes import Plane, Scene

    random = np.random.default_rng(0)
    coarse = random.random((8, 8, 3), dtype=np.float32)
    texture = np.dstack([np.kron(coarse, np.ones((32, 32, 1))), np.ones((256, 256))])
    scene = Scene((Plane(texture.astype(np.float32), 1.5, (1.0, 0, 0)),), camera=(0.05, 0, 0))
    return measuring.Clip(0, tuple(scene.frames(6, 64)))


def test_what_the_style_draws_has_no_error(clip):
    drawn = measuring.measure("reference", clip, 0, measuring.drawn(clip), flat_depth)
    assert drawn.error == 0
    assert drawn.method == "reference" and (drawn.clip, drawn.seed) == (0, 0)


def test_the_input_follows_its_flow_and_has_its_own_depth(clip):
    same = measuring.measure("input", clip, 0, clip.pictures, flat_depth)
    random = np.random.default_rng(1)
    noisy = [p + random.normal(0, 0.2, p.shape).astype(np.float32) for p in clip.pictures]
    other = measuring.measure("noisy", clip, 0, noisy, flat_depth)
    assert same.depth_mse == 0 < other.depth_mse
    assert same.warp_error < 0.3 * other.warp_error


def test_a_grey_picture_has_no_warp_error_but_the_largest_error(clip):
    grey = [np.full_like(picture, 0.5) for picture in clip.pictures]
    found = measuring.measure("grey", clip, 0, grey, flat_depth)
    same = measuring.measure("input", clip, 0, clip.pictures, flat_depth)
    assert found.warp_error == 0
    assert found.error > same.error


def test_measurements_are_read_again_without_a_line_that_was_cut_off(tmp_path):
    sample = measuring.Sample("A", 1, 2, 0.1, 0.2, 0.3)
    with (tmp_path / "0-of-1.jsonl").open("w") as file:
        measuring._append(file, sample)
        file.write('{"method": "B", "cl')
    assert measuring.read(tmp_path) == [sample]


def test_intervals_hold_the_mean_and_shrink_with_agreement():
    random = np.random.default_rng(0)
    wide = statistics.interval(1 + random.normal(0, 0.5, 40))
    narrow = statistics.interval(1 + random.normal(0, 0.05, 40))
    assert wide.low < 1 < wide.high
    assert narrow.high - narrow.low < 0.2 * (wide.high - wide.low)
    half = statistics.change(np.full(40, 0.5), np.full(40, 1.0))
    assert (half.mean, half.low, half.high) == (-0.5, -0.5, -0.5)


def test_a_clip_that_is_played_to_and_fro_has_no_jump(clip):
    played = list(lasting.to_and_fro(clip, 23))
    places = [next(n for n, p in enumerate(clip.pictures) if p is frame) for frame in played]
    assert places == [*([0, 1, 2, 3, 4, 5, 4, 3, 2, 1] * 3)[:23]]


def test_the_page_has_every_method_and_says_which_orders_come_out():
    random = np.random.default_rng(0)
    worth = {"D": 1.0, "both": 1.0, "C": 2.0, "B": 3.0, "A": 1.9, "per-frame": 1.2}
    samples = [
        measuring.Sample(name, clip, seed, *(worth.get(name, 2.0) * random.uniform(0.9, 1.1, 3)))
        for name in [*(method.name for method in METHODS), measuring.REFERENCE]
        for clip in range(12)
        for seed in range(3)
    ]
    courses = [
        lasting.Course(method.name, clip, (0.1,) * 10)
        for method in lasting.LASTING
        for clip in (100, 101)
    ]
    page = report(samples, courses, Costs(0.02, 0.3, 15.0), ["evidence-neon.png"])
    assert all(f"| {method.title} |" in page for method in METHODS)
    assert "D has less warp error than C: yes, -50%" in page
    assert "D has less warp error than per-frame by at least 30%: **no**, -17%" in page
    assert "15.0 times as much" in page and "![evidence-neon.png](evidence-neon.png)" in page


def test_each_module_has_a_mask_of_figure_1_and_one_of_them_depth():
    assert len({m["attention_mode"] for m in MODULES.values()}) == 4
    assert [name for name, m in MODULES.items() if m["depth"]] == ["figure-1d-depth"]

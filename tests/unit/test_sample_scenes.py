"""Rendered scenes: flow and depth are exact, and depend on the seed alone."""

import cv2
import numpy as np
import pytest

from training.sample_model.scenes import Plane, Scene
from training.sample_model.styles import BLOCK, STYLES

SIDE = 64


def plane(depth=(1.0, 0.0, 0.0), half_side=2.0, colour=0.5, **moves):
    random = np.random.default_rng(0)
    texture = np.ones((128, 128, 4), np.float32)
    coarse = colour + random.uniform(-0.3, 0.3, (8, 8, 3)).astype(np.float32)
    texture[..., :3] = cv2.resize(coarse, (128, 128)).clip(0, 1)
    return Plane(texture, half_side, depth, **moves)


def frames(scene, count=2):
    return list(scene.frames(count, SIDE))


def test_a_camera_that_moves_sideways_shifts_a_plane_by_its_inverse_depth():
    for depth in (0.5, 1.0):
        first, _ = frames(Scene((plane((depth, 0, 0)),), camera=(0.125, 0, 0)))
        np.testing.assert_allclose(first.flow[..., 0], -0.125 * depth * SIDE / 2, atol=1e-4)
        np.testing.assert_allclose(first.flow[..., 1], 0, atol=1e-4)


def test_a_camera_that_moves_forward_brings_planes_nearer():
    scene = Scene((plane(),), camera=(0, 0, 0.1))
    first, second = frames(scene)
    np.testing.assert_allclose(first.inverse_depth, 1.0, rtol=1e-5)
    np.testing.assert_allclose(second.inverse_depth, 1 / 0.9, rtol=1e-5)
    # Away from the centre, in proportion to the distance.
    assert first.flow[32, 60, 0] > first.flow[32, 40, 0] > 0 > first.flow[32, 10, 0]


def test_the_next_picture_lies_where_the_flow_says():
    floor = plane((0.4, 0.0, 0.4), velocity=(0.01, 0.0), spin=0.01)
    near = plane((0.9, 0.0, 0.0), half_side=0.4, colour=0.7, velocity=(0.03, -0.02), spin=0.02)
    first, second = frames(Scene((floor, near), camera=(0.02, 0.01, 0.02)))
    x, y = np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32))
    back = cv2.remap(
        second.picture, x + first.flow[..., 0], y + first.flow[..., 1], cv2.INTER_LINEAR
    )
    error = np.abs(back - first.picture).mean(-1)[first.visible].mean()
    still = np.abs(second.picture - first.picture).mean()
    assert error < 0.5 * still
    assert 0.8 < first.visible.mean() < 1


def test_what_is_covered_in_the_next_picture_is_not_visible():
    behind = plane((0.1, 0, 0))
    before = plane((1.0, 0, 0), half_side=0.3, velocity=(0.2, 0.0))
    first, _ = frames(Scene((behind, before), camera=(0, 0, 0)))
    row = first.visible[SIDE // 2]
    # The thing moves by 6.4 pixels: so many columns of the background at its right are covered.
    assert 5 <= (~row).sum() <= 8
    assert first.inverse_depth[SIDE // 2, SIDE // 2] == pytest.approx(1.0)


@pytest.mark.parametrize("style", STYLES)
def test_styles_change_the_picture_and_stay_in_range(style):
    picture = frames(Scene((plane(),), camera=(0, 0, 0)), 1)[0].picture
    drawn = STYLES[style](picture)
    assert drawn.shape == picture.shape and drawn.dtype == np.float32
    assert 0 <= drawn.min() and drawn.max() <= 1
    assert (np.abs(drawn - picture).mean() < 1e-6) == (style == "photograph")


def test_pixel_art_has_square_pixels_of_few_colours():
    picture = frames(Scene((plane(),), camera=(0, 0, 0)), 1)[0].picture
    drawn = STYLES["pixel art"](picture)
    blocks = drawn.reshape(SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert len(np.unique(drawn)) <= 5

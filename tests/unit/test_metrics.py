"""Every metric against clips whose flow, occlusions and depth are known exactly."""

import math

import numpy as np
import pytest
import rendered_clips as rendered
from safetensors.numpy import load_file

from live2diff_core.metrics import depth_error, flow, mawe, warp_error
from live2diff_core.metrics.clip_score import clip_score
from live2diff_core.metrics.flicker import flicker, still
from live2diff_core.metrics.xt_slice import XTSlice, row_at, side_by_side

cv2 = pytest.importorskip("cv2")
FRAMES = 6
CLIPS = {"translating": rendered.translating, "moving square": rendered.moving_square}
every_clip = pytest.mark.parametrize("make", CLIPS.values(), ids=CLIPS)


@pytest.fixture(scope="module")
def dis():
    return flow.DISFlow()


def pairs(frames):
    return zip(frames, frames[1:], strict=False)


def inner(mask, margin):
    """True where all pixels around are True."""
    width = 2 * margin + 1
    padded = np.pad(mask, margin, constant_values=False)
    return np.lib.stride_tricks.sliding_window_view(padded, (width, width)).all((-1, -2))


# Flow, warping, occlusions


@every_clip
def test_dis_finds_the_flow_that_was_rendered(make, dis):
    clip = make(FRAMES)
    for index, (before, after) in enumerate(pairs(clip.frames)):
        found = dis(after, before)
        assert found.shape == (*after.shape[:2], 2) and found.dtype == np.float32
        # Away from edges of motion, which an estimator can only guess.
        moving = np.abs(clip.backward[index]).sum(-1) > 0
        far = inner(clip.seen[index], 2) & (inner(moving, 6) | inner(~moving, 6))
        assert far.mean() > 0.3
        error = np.linalg.norm(found - clip.backward[index], axis=-1)[far]
        assert error.mean() < 0.1 and np.quantile(error, 0.95) < 0.3


@every_clip
def test_warping_along_the_exact_flow_gives_the_next_frame(make):
    clip = make(FRAMES)
    for index, (before, after) in enumerate(pairs(clip.frames)):
        moved, inside = flow.warp(before, clip.backward[index])
        assert (inside >= clip.seen[index]).all()
        assert (moved == after)[clip.seen[index]].all()


def test_what_was_not_seen_cannot_be_warped():
    clip = rendered.moving_square(2)
    moved, _ = flow.warp(clip.frames[0], clip.backward[0])
    assert (~clip.seen).any() and (moved != clip.frames[1])[~clip.seen[0]].any(-1).all()


def test_warping_between_pixels_is_bilinear():
    ramp = np.add.outer(2.0 * np.arange(5), 10.0 * np.arange(7))[..., None]
    moved, inside = flow.warp(ramp, np.full((5, 7, 2), (0.25, 0.5), np.float32))
    assert inside[:-1, :-1].all() and not inside[-1].any() and not inside[:, -1].any()
    assert np.allclose(moved[:-1, :-1], ramp[:-1, :-1] + 2.5 + 1.0)


@every_clip
def test_occluded_pixels_are_found(make):
    clip = make(FRAMES)
    for index in range(FRAMES - 1):
        found = flow.visible(clip.backward[index], clip.forward[index])
        assert not (found & ~clip.seen[index]).any()
        # What is left out besides are the edges of motion, one pixel wide.
        edge = np.abs(np.diff(clip.backward[index], axis=0, append=0)).sum(-1) > 0
        edge |= np.abs(np.diff(clip.backward[index], axis=1, append=0)).sum(-1) > 0
        lost = clip.seen[index] & ~found
        assert not (lost & ~inner_or(edge)).any()


def inner_or(mask):
    """True where any pixel around is True."""
    return ~inner(~mask, 1) | mask


def test_flow_does_not_depend_on_what_was_estimated_before(dis):
    before, after = rendered.moving_square(2).frames
    expected = dis(before, after)
    dis(*rendered.still(2, size=(32, 32)))
    assert (dis(before, after) == expected).all()


# Warp error


@every_clip
def test_a_clip_has_no_warp_error_along_its_exact_flow(make):
    clip = make(FRAMES)
    for index, (before, after) in enumerate(pairs(clip.frames)):
        mask = flow.visible(clip.backward[index], clip.forward[index])
        assert warp_error.warp_error(before, after, clip.backward[index], mask) == 0


def test_uncovered_background_is_masked_and_would_count_otherwise():
    clip = rendered.moving_square(2)
    everything = np.ones(clip.seen[0].shape, bool)
    back = clip.backward[0]
    assert warp_error.warp_error(*clip.frames, back, everything) > 1e-4
    assert warp_error.warp_error(*clip.frames, back, clip.seen[0]) == 0


@pytest.mark.parametrize("levels", [10, 40])
def test_warp_error_is_the_square_of_what_was_added(levels):
    clip = rendered.translating(2)
    frames = rendered.brighter(clip.frames // 2, levels)
    mask = flow.visible(clip.backward[0], clip.forward[0])
    found = warp_error.warp_error(*frames, clip.backward[0], mask)
    assert found == pytest.approx((levels / 255) ** 2)


def test_warp_error_grows_with_flicker_and_dis_sees_it(dis):
    clip = rendered.moving_square(2)
    found = []
    for levels in (0, 10, 30):
        back = dis(clip.frames[1], clip.frames[0])
        mask = flow.visible(back, dis(clip.frames[0], clip.frames[1]))
        assert mask.mean() > 0.6
        frames = rendered.brighter(clip.frames // 2, levels)
        found.append(warp_error.warp_error(*frames, back, mask))
    assert found[0] < 5e-4
    assert found[1] - found[0] == pytest.approx((10 / 255) ** 2, rel=0.2)
    assert found[2] - found[0] == pytest.approx((30 / 255) ** 2, rel=0.2)


def test_nothing_visible_has_no_warp_error():
    clip = rendered.translating(2)
    nothing = np.zeros(clip.seen[0].shape, bool)
    assert warp_error.warp_error(*clip.frames, clip.backward[0], nothing) is None


# MAWE


@pytest.fixture(scope="module")
def trace(golden_folder):
    """Recorded from StreamingT2V's code, with random pictures and flow."""
    trace = load_file(golden_folder.parent / "streamingt2v" / "trace-mawe.safetensors")
    pictures = trace["video_u8"].transpose(0, 2, 3, 1)
    return trace, pictures, trace["flows"].transpose(0, 2, 3, 1)


def test_pixels_are_splatted_as_in_the_published_code(trace):
    trace, pictures, flows = trace
    for index, vectors in enumerate(flows):
        moved, known = mawe.splat(pictures[index], vectors)
        assert (moved == trace["warped"][index].transpose(1, 2, 0)).all()
        assert (known == (trace["unknown"][index] == 0)).all()


def test_mawe_is_that_of_the_published_code(trace):
    trace, pictures, flows = trace
    found = mawe.CodeMAWE()
    for (before, after), vectors, error, motion in zip(
        pairs(pictures), flows, trace["warp_error"], trace["motion"], strict=True
    ):
        ratio = found.add(before, after, vectors)
        assert ratio == pytest.approx(error / (9.5 * motion), rel=1e-5)
    assert found.value == pytest.approx(float(trace["mawe"][0]), rel=1e-5)


def test_mawe_of_the_paper_is_a_ratio_of_means(trace):
    """Equation 9, written out by hand, without a mask."""
    _, pictures, flows = trace
    found, errors = mawe.PaperMAWE(), []
    for (before, after), vectors in zip(pairs(pictures), flows, strict=True):
        everything = np.ones(vectors.shape[:2], bool)
        found.add(before, after, vectors, everything)
        moved, inside = flow.warp(after, vectors)
        errors.append((((before - moved.astype(np.float64)) ** 2).sum(-1))[inside].mean())
    expected = np.mean(errors) / np.mean((flows.astype(np.float64) ** 2).sum(-1))
    assert found.value == pytest.approx(expected, rel=1e-5)


@every_clip
def test_mawe_of_a_perfect_clip_is_0(make):
    clip = make(FRAMES)
    code, paper = mawe.CodeMAWE(), mawe.PaperMAWE()
    for (before, after), vectors, back in zip(
        pairs(clip.frames), clip.forward, clip.backward, strict=True
    ):
        code.add(before, after, vectors)
        paper.add(before, after, vectors, flow.visible(vectors, back))
    # The published code has no mask; but this square moves up, so that in reading order its pixels
    # land after those of the background that they cover.
    assert paper.value == code.value == 0


def test_mawe_of_what_stands_still():
    picture = rendered.still(1)[0]
    nothing = np.zeros((*picture.shape[:2], 2), np.float32)
    everything = np.ones(picture.shape[:2], bool)
    code, paper = mawe.CodeMAWE(), mawe.PaperMAWE()
    code.add(picture, picture, nothing)
    paper.add(picture, picture, nothing, everything)
    assert code.value is None and paper.value is None
    code.add(picture, picture // 2, nothing)
    paper.add(picture, picture // 2, nothing, everything)
    assert code.value == paper.value == math.inf


def test_pictures_are_scaled_for_mawe_without_antialiasing():
    """Twice as large and back: every second pixel pair, averaged; 8 bits."""
    picture = rendered.still(1)[0][:64, :64]
    assert mawe.scaled(picture, 64) is picture
    small = mawe.scaled(picture, 16).astype(float)
    # In the middle between the second and the third of four pixels, nothing else.
    rows = picture[1::4].astype(float) + picture[2::4]
    assert np.abs(small - (rows[:, 1::4] + rows[:, 2::4]) / 4).max() <= 0.5


# Depth


def exact_depth(clip):
    """Knows the depth of the clip's frames, and calls everything else flat."""
    known = {frame.tobytes(): depth for frame, depth in zip(clip.frames, clip.depth, strict=True)}

    def estimate(pictures):
        flat = np.ones(pictures.shape[1:3], np.float32)
        return np.stack([known.get(picture.tobytes(), flat) for picture in pictures])

    return estimate


def test_depth_mse_of_exact_depth():
    clip = rendered.moving_square(4)
    estimate = exact_depth(clip)
    assert depth_error.depth_mse(estimate, clip.frames[0], clip.frames[0]) == 0
    # 1 where the square is in one of two frames, and not in the other.
    found = depth_error.depth_mse(estimate, clip.frames[0], clip.frames[3])
    differ = (clip.depth[0] != clip.depth[3]).mean()
    assert found == pytest.approx(differ) and found > 0.01
    # A structure that is lost: the square is gone.
    gone = depth_error.depth_mse(estimate, clip.frames[0], clip.frames[0] // 2)
    assert gone == pytest.approx(rendered.SIDE**2 / clip.depth[0].size)


def test_depth_mse_ignores_scale_and_shift():
    clip = rendered.moving_square(2)
    estimate = exact_depth(clip)

    def other_unit(pictures):
        return estimate(pictures) * np.float32([7, 0.1])[:, None, None] + 3

    expected = depth_error.depth_mse(estimate, *clip.frames)
    assert depth_error.depth_mse(other_unit, *clip.frames) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda pictures: np.zeros((4, 4)), r"should be \[2, h, w\], but is \[4, 4\]"),
        (lambda pictures: np.full((2, 4, 4), np.nan), "NaN or infinite depth"),
    ],
)
def test_depth_that_is_none(wrong, message):
    frames = rendered.still(2)
    with pytest.raises(ValueError, match=message):
        depth_error.depth_mse(wrong, *frames)


# CLIP, flicker, X-T slices


def test_clip_score_is_100_times_the_cosine():
    east, north = np.float32([1, 0]), np.float32([0, 2])
    assert clip_score(east, 3 * east) == pytest.approx(100)
    assert clip_score(east, north) == pytest.approx(0)
    assert clip_score(east, -east) == pytest.approx(-100)
    assert clip_score(east, east + north / 2) == pytest.approx(100 * math.sqrt(0.5))
    for wrong in (0 * east, east * np.nan):
        with pytest.raises(ValueError, match="0 or not finite"):
            clip_score(east, wrong)


def test_flicker_is_what_was_added_where_the_input_stands_still():
    clip = rendered.moving_square(2)
    mask = still(*clip.frames)
    moved = (clip.frames[0] != clip.frames[1]).any(-1)
    # The square and up to two pixels around it are left out; all else is not.
    assert not mask[inner(moved, 2)].any() and mask[inner(~moved, 2)].all()
    steady = rendered.still(2) // 2
    assert flicker(*steady, mask) == 0
    assert flicker(*rendered.brighter(steady, 20), mask) == pytest.approx(20 / 255)
    changed = steady.copy()
    changed[1][~mask] = 255
    assert flicker(*changed, mask) == 0


def test_camera_noise_stands_still_and_a_pan_does_not():
    generator = np.random.default_rng(0)
    noisy = rendered.still(2) // 2 + generator.normal(60, 2.2, (2, 80, 96, 3))
    assert still(*noisy.astype(np.uint8)).mean() > 0.95
    assert still(*rendered.translating(2).frames).mean() < 0.2
    nothing = np.zeros((80, 96), bool)
    assert flicker(*rendered.still(2), nothing) is None


def test_xt_slice_has_one_row_per_frame():
    frames = rendered.moving_square(FRAMES).frames
    found = XTSlice(frames.shape[2], 50)
    for frame in frames:
        found.add(frame)
    assert (found.image == frames[:, 50]).all()


@pytest.mark.parametrize("count, stride", [(8, 1), (9, 2), (16, 2), (17, 4), (33, 8)])
def test_a_long_xt_slice_keeps_every_second_frame(count, stride):
    found = XTSlice(4, 0, limit=8)
    for number in range(count):
        found.add(np.full((2, 4, 3), number, np.uint8))
    assert found.image[:, 0, 0].tolist() == list(range(0, count, stride))


def test_slices_are_shown_side_by_side():
    slices = XTSlice(4, 0), XTSlice(4, 0)
    for each, value in zip(slices, (10, 20), strict=True):
        for _ in range(3):
            each.add(np.full((2, 4, 3), value, np.uint8))
    image = side_by_side(*slices)
    assert image.shape == (3 * 86, 4 + 8 + 4, 3)
    assert (image[:, :4] == 10).all() and (image[:, 12:] == 20).all()
    assert (image[:, 4:12] == 255).all()


def test_row_of_the_slice():
    assert [row_at(80, each) for each in (0, 0.5, 1)] == [0, 40, 79]
    with pytest.raises(ValueError, match="0 to 1 of the height, not 1.5"):
        row_at(80, 1.5)

"""Streams through ComfyUI's UNet against the whole clip at once: any size, length and mode."""

import pytest
import torch
from host_stream import (
    SIZE,
    Stream,
    computing_in,
    core,
    frames,
    patched,
    relative_error,
    translate,
    translate_at_once,
)

LIMIT = 1e-4


@pytest.mark.parametrize("mode", ["bidirectional", "sliding", "causal", "causal_warmup"])
@pytest.mark.parametrize("steps", [1, 3])
def test_every_attention_mode(monkeypatch, sd15, motion, mode, steps):
    """A window of 6 over 15 frames: slots are reused, chunks are cut, with depth."""
    model = patched(sd15, motion, 6, 3, mode)
    latents, depth = frames(15), frames(15, seed=1)
    found = translate(model, latents, depth, steps=steps)
    expected = translate_at_once(monkeypatch, model, latents, depth, steps=steps)
    assert relative_error(found, expected) < LIMIT


@pytest.mark.parametrize("size", [(5, 3), (3, 5), (1, 40)])
def test_the_smallest_frames_run(sd15, motion, size):
    found = translate(patched(sd15, motion), frames(10, size), frames(10, size, seed=1))
    assert found.shape == (10, 4, *size) and found.isfinite().all()


def test_modes_differ(sd15, motion):
    latents = frames(9)
    clips = [
        translate(patched(sd15, motion, 4, 2, mode), latents)
        for mode in ("bidirectional", "sliding", "causal", "causal_warmup")
    ]
    clips.append(translate(sd15, latents))
    for index, clip in enumerate(clips):
        for other in clips[:index]:
            assert relative_error(clip, other) > 1e-2


@pytest.mark.parametrize(
    "count, size, steps",
    [
        (1, (9, 13), 2),  # odd sizes, and shorter than the warm-up
        (3, (9, 13), 4),
        (8, (16, 5), 2),  # all warm-up
        (9, (9, 13), 3),  # one streamed frame
        (20, (2, 16), 2),  # wraps round the ring
    ],
)
def test_the_papers_window_at_any_length_and_size(monkeypatch, sd15, motion, count, size, steps):
    model = patched(sd15, motion)
    latents, depth = frames(count, size), frames(count, size, seed=1)
    found = translate(model, latents, depth, steps=steps)
    assert len(found) == count
    expected = translate_at_once(monkeypatch, model, latents, depth, steps=steps)
    assert relative_error(found, expected) < LIMIT


@pytest.mark.parametrize("steps", range(1, 9))
def test_any_number_of_steps(monkeypatch, sd15, motion, steps):
    model = patched(sd15, motion, 4, 2)
    latents = frames(6)
    found = translate(model, latents, steps=steps)
    expected = translate_at_once(monkeypatch, model, latents, steps=steps)
    assert relative_error(found, expected) < LIMIT


@pytest.mark.parametrize("window, warmup", [(24, 8), (2, 1), (24, 23)])
def test_other_windows(monkeypatch, sd15, motion, window, warmup):
    model = patched(sd15, motion, window, warmup)
    latents = frames(26 if window == 24 else 6)
    found = translate(model, latents, steps=1)
    expected = translate_at_once(monkeypatch, model, latents, steps=1)
    assert relative_error(found, expected) < LIMIT


@torch.inference_mode()
def test_chunks_change_nothing(sd15, motion):
    """One at a time, eight at a time, everything at once: the same numbers, to the bit."""
    model = patched(sd15, motion)
    latents, depth = frames(14), frames(14, seed=1)
    whole = translate(model, latents, depth)
    for cuts in ([*range(15)], [0, 8, 14], [0, 3, 9, 10, 14]):
        with Stream(model, SIZE, 14, depth=True) as stream:
            parts = [
                stream.session.push_all(latents[a:b], depth[a:b])
                for a, b in zip(cuts, cuts[1:], strict=False)
            ]
            assert torch.equal(torch.cat([*parts, stream.session.flush()]), whole)


@torch.inference_mode()
def test_rows_only_share_a_batch(sd15, motion):
    """The pipelined call of T rows gives what T calls of one row give."""
    model = patched(sd15, motion)
    latents = frames(12)
    whole = translate(model, latents, steps=3)
    with Stream(model, SIZE, 12, steps=3) as stream:
        host, calls = stream.host, []

        def one_by_one(x, plan):
            calls.append(len(plan.rows))
            return torch.cat([host(x[rows], part) for rows, part in plan.by_step()])

        stream.session.model = one_by_one
        assert relative_error(stream.run(latents), whole) < LIMIT
    assert max(calls[3:]) == 3


def test_depth_changes_the_picture(sd15, motion):
    model = patched(sd15, motion)
    latents = frames(9)
    clips = [translate(model, latents, depth) for depth in (None, frames(9, seed=1))]
    assert relative_error(*clips) > 1e-2


def test_a_frame_depends_on_no_later_one(sd15, motion):
    """Causal: what comes after the 10th frame cannot change it."""
    model = patched(sd15, motion)
    one, other = frames(12), frames(12)
    other[10:] += 1
    one, other = translate(model, one), translate(model, other)
    assert torch.equal(one[:9], other[:9])
    # Frame 9 shares its second call with frame 10, whose rows are rounded together.
    assert relative_error(one[9:10], other[9:10]) < LIMIT
    assert relative_error(one[10:], other[10:]) > 1e-2


@pytest.mark.parametrize("size", [(4, 8), (9, 13)])
@pytest.mark.parametrize("steps, cfg", [(1, 1.0), (3, 1.0), (2, 2.0)])
@torch.inference_mode()
def test_the_memory_estimate_is_exact(sd15, motion, size, steps, cfg):
    model = patched(sd15, motion, 5, 2)
    with Stream(model, size, 3, steps=steps, cfg=cfg) as stream:
        stream.run(frames(3, size))
        assert stream.session.nbytes == stream.host.memory_bytes > 0


@pytest.mark.parametrize(
    "stored, computed, cached",
    [
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float16, torch.float32, torch.float32),
        (torch.float8_e4m3fn, torch.bfloat16, torch.bfloat16),
    ],
    ids=str,
)
@torch.inference_mode()
def test_weights_of_other_types(golden, golden_folder, motion, stored, computed, cached):
    """The cache and its estimate follow the type that the UNet computes in."""
    exact = golden[0].build_sd15(golden_folder / "unet.safetensors")
    plain = computing_in(exact, stored, computed)
    model = patched(plain, motion, 4, 2)
    with Stream(model, SIZE, 6, cfg=2.0, depth=True) as stream:
        found = stream.run(frames(6), frames(6, seed=1))
        assert stream.session.nbytes == stream.host.memory_bytes
        caches = stream.session.memory["live2diff"].caches.state_dict()
        types = {tensor.dtype for tensor in caches.values()}
    assert types == {cached} and found.dtype is torch.float32
    latents = frames(6), frames(6, seed=1)
    expected = translate(patched(exact, motion, 4, 2), *latents, cfg=2.0)
    assert (found - expected).abs().mean() < 0.5 * expected.abs().mean()


@torch.inference_mode()
def test_memory_does_not_grow(sd15, motion):
    with Stream(patched(sd15, motion, 4, 2), (4, 6), 40) as stream:
        stream.session.push_all(frames(10, (4, 6)))
        held = stream.session.nbytes
        stream.session.push_all(frames(30, (4, 6), seed=1))
        assert stream.session.nbytes == held


@torch.inference_mode()
def test_a_cache_that_cannot_fit_is_refused_before_anything_is_loaded(sd15, motion):
    model = patched(sd15, motion)
    error = core("host.memory_need").StreamMemoryError
    remedy = r"needs at least [\d.]+ GB, but cpu has only .* smaller frames, fewer denoising steps"
    with pytest.raises(error, match=remedy), Stream(model, (200_000, 200_000), 3):
        pass
    assert len(translate(model, frames(2))) == 2

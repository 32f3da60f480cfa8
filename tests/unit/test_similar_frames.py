"""Similar frames are skipped: fewer model calls, the same number of frames, nothing mixed up."""

import pytest
import torch
import toy_stream as toy
from hypothesis import given, settings
from hypothesis import strategies as st
from still_clips import CONFIGS, SEED, every_config, noisy, opened, still
from torch.utils._python_dispatch import TorchDispatchMode

from live2diff_core.live2diff.window import AttentionWindow
from live2diff_core.stream.noise import FrameNoise, frame_chance
from live2diff_core.stream.prompt_timeline import PromptChange, PromptTimeline
from live2diff_core.stream.similar_frames import SimilarFrameFilter, SkipRule


def decisions(similar, images, first=0):
    """Whether each frame is skipped, with nothing else to hold it back."""
    skipped = []
    for frame, image in enumerate(images, first):
        skipped.append(similar.skips(frame, image))
        if not skipped[-1]:
            similar.translated(image)
    return skipped


# Decisions


def test_equal_frames_are_skipped_and_others_are_not():
    found = decisions(SimilarFrameFilter(SEED, SkipRule(0.999, 100)), still(12, (5, 6, 9)))
    assert [frame for frame in range(12) if not found[frame]] == [0, 5, 6, 9]


@given(st.integers(1, 30), st.integers(0, 8), st.integers(0, 2**64 - 1))
def test_at_most_so_many_in_a_row(count, most, seed):
    found = decisions(SimilarFrameFilter(seed, SkipRule(0.5, most)), still(count))
    assert found == [frame % (most + 1) != 0 for frame in range(count)]


@pytest.mark.parametrize("settings", [None, SkipRule(1.0, 100), SkipRule(0.0, 0)])
def test_nothing_is_skipped(settings):
    assert not any(decisions(SimilarFrameFilter(SEED, settings), still(20)))


def test_unlike_frames_are_never_skipped():
    pictures = torch.randn(40, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    assert not any(decisions(SimilarFrameFilter(SEED, SkipRule(0.6, 100)), pictures))


def test_the_chance_grows_from_the_threshold_to_certainty():
    """Pairs of a given similarity, over many frames: the part of them that is skipped."""
    first = torch.tensor([1.0, 0.0])
    for similarity, chance in ((0.79, 0.0), (0.8, 0.0), (0.85, 0.25), (0.95, 0.75), (1.0, 1.0)):
        other = torch.tensor([similarity, (1 - similarity**2) ** 0.5])
        similar = SimilarFrameFilter(SEED, SkipRule(0.8, 10_000))
        similar.translated(first)
        skipped = sum(similar.skips(frame, other) for frame in range(2000)) / 2000
        assert abs(skipped - chance) <= (0.04 if 0 < chance < 1 else 0.001)


def test_slow_changes_add_up():
    """Each frame is like the one before it, but no longer like the last translated one."""
    turn = torch.arange(60.0) / 100
    images = torch.stack([turn.cos(), turn.sin()], dim=1)
    found = decisions(SimilarFrameFilter(SEED, SkipRule(0.98, 100)), images)
    translated = [frame for frame in range(60) if not found[frame]]
    assert any(found) and all(b - a <= 20 for a, b in zip(translated, translated[1:], strict=False))
    assert len(translated) >= 4


@given(st.data())
@settings(deadline=None, max_examples=20)
def test_decisions_follow_from_seed_and_frame(data):
    """However the stream is cut, saved and loaded."""
    images, options = noisy(20, 0.05), SkipRule(0.98, 5)
    whole = decisions(SimilarFrameFilter(SEED, options), images)
    cuts = sorted(data.draw(st.sets(st.integers(0, 20), max_size=4)))
    similar, found = SimilarFrameFilter(SEED, options), []
    for start, stop in zip([0, *cuts], [*cuts, 20], strict=True):
        state = {name: tensor.clone() for name, tensor in similar.state_dict().items()}
        similar = SimilarFrameFilter(SEED, options)
        similar.load_state_dict(state)
        found += decisions(similar, images[start:stop], start)
    assert found == whole and 0 < sum(whole) < 20


def test_seeds_decide_otherwise():
    images = noisy(40, 0.05)
    found = {tuple(decisions(SimilarFrameFilter(s, SkipRule(0.98)), images)) for s in range(4)}
    assert len(found) == 4


def test_the_name_of_a_rule_is_that_of_saved_streams():
    assert str(SkipRule(0.9, 2)) == "threshold=0.9, most_skipped=2"


@pytest.mark.parametrize(
    "numbers, message",
    [((1.01, 1), "1.01"), ((-0.1, 1), "0 to 1"), ((float("nan"), 1), "nan"), ((0.5, -1), "-1")],
)
def test_numbers_out_of_range(numbers, message):
    with pytest.raises(ValueError, match=message):
        SkipRule(*numbers)


# Sessions


def feed(session, latents, wanted):
    """Repeat the frames in `wanted` where that can be: (outputs, frames repeated)."""
    found, repeated = [], set()
    for frame, latent in enumerate(latents):
        if frame in wanted and session.can_repeat:
            repeated.add(frame)
            found += session.repeat()
        else:
            found += session.push(latent)
        assert session.frames_out == len(found) <= session.frames_in == frame + 1
    return [*found, *session.drain()], repeated


@every_config
@given(data=st.data())
@settings(deadline=None, max_examples=15)
def test_the_model_sees_the_translated_frames_as_consecutive(config, data):
    """Equal to a stream of those alone, each with its own noise, and shown as often as due."""
    count, steps = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 4))
    latents, wanted = toy.frames(count), data.draw(st.sets(st.integers(0, 19)))
    found, repeated = feed(opened(config, steps), latents, wanted)
    kept = [frame for frame in range(count) if frame not in repeated]
    noise = FrameNoise(SEED)
    alone = opened(config, steps, lambda order, step, shape: noise(kept[order], step, shape))
    outputs = [*alone.push_all(latents[kept]), *alone.flush()]
    shown = [sum(k <= frame for k in kept) - 1 for frame in range(count)]
    assert len(found) == count
    assert all(torch.equal(x0, outputs[n]) for x0, n in zip(found, shown, strict=True))
    assert [found[f] is found[f - 1] for f in range(1, count)] == [
        f in repeated for f in range(1, count)
    ]


@every_config
@pytest.mark.parametrize("steps", [1, 3])
def test_first_frame_and_warm_up_are_translated(config, steps):
    _, repeated = feed(opened(config, steps), toy.frames(12), set(range(12)))
    assert repeated == set(range(3 if config is CONFIGS["warm-up"] else 1, 12))


def test_frames_where_the_prompt_changes_are_translated():
    changes = (PromptChange(5), PromptChange(8, blend=2))
    session = opened(None, 3, timelines=(PromptTimeline(changes),))
    _, repeated = feed(session, toy.frames(14), set(range(14)))
    assert set(range(14)) - repeated == {0, 5, 8, 9, 10}


def test_the_warm_up_after_a_restart_is_translated():
    timeline = PromptTimeline((PromptChange(7, restart=True),))
    session = opened(AttentionWindow(6, 3), 2, timelines=(timeline,))
    found, repeated = feed(session, toy.frames(14), set(range(14)))
    assert set(range(14)) - repeated == {0, 1, 2, 7, 8, 9} and len(found) == 14


def test_what_cannot_repeat_says_so():
    session = opened(None, 2)
    with pytest.raises(RuntimeError, match="frame 0 cannot repeat"):
        session.repeat()
    session.push(toy.frames(1)[0])
    session.flush()
    assert not session.can_repeat
    with pytest.raises(RuntimeError, match="cannot repeat"):
        session.repeat()


@pytest.mark.parametrize("size", [(8, 8), (512, 512)], ids=str)
@pytest.mark.parametrize("brightness", [0.0, 1e-6, 0.5, None])
def test_equal_frames_are_skipped_whatever_they_show(size, brightness):
    """Latents that are all 0, too, which have no direction to compare."""
    picture = torch.rand(*size, 3) if brightness is None else torch.full((*size, 3), brightness)
    similar = SimilarFrameFilter(7, SkipRule(0.9999, 1000))
    similar.translated(picture)
    assert all(similar.skips(frame, picture.clone()) for frame in range(20))


def test_zero_and_another_picture_are_unlike():
    similar = SimilarFrameFilter(7, SkipRule(0.0, 1000))
    similar.translated(torch.zeros(8, 8, 3))
    assert not any(similar.skips(frame, torch.rand(8, 8, 3)) for frame in range(20))


def test_large_frames_are_compared_as_exactly_as_small_ones():
    """Sums over millions of pixels in float32 are off by more than the filter looks at."""
    first = torch.rand(1080, 1920, 3, generator=torch.Generator().manual_seed(0))
    other = first + 0.02 * torch.randn(first.shape, generator=torch.Generator().manual_seed(1))
    a, b = first.double().flatten(), other.double().flatten()
    chance = 1 - (1 - (a @ b / a.norm() / b.norm()).item()) / (1 - 0.999)
    similar = SimilarFrameFilter(7, SkipRule(0.999, 10_000))
    similar.translated(first)
    skipped = sum(similar.skips(frame, other) for frame in range(40)) / 40
    assert abs(skipped - chance) < 0.15


def formula(one, other):
    """The similarity as versions up to 0.2 computed it, in torch."""

    def centred(picture):
        return picture.float() / 127.5 - 1 if picture.dtype == torch.uint8 else picture.float()

    a, b = centred(one), centred(other)
    mixed, first, second = ((x * y).sum().item() for x, y in ((a, b), (a, a), (b, b)))
    return mixed / (first * second) ** 0.5


@given(st.integers(0, 2**32), st.floats(0, 0.3), st.sampled_from(["bytes", "latents", "saved"]))
@settings(deadline=None, max_examples=40)
def test_decisions_are_those_of_the_formula(seed, amount, kind):
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(24, 32, 3, generator=generator)
    noise = torch.randn(8, 24, 32, 3, generator=generator)
    others = (first + amount * noise).clamp(0, 1)
    if kind != "latents":
        first, others = ((p * 255).round().to(torch.uint8) for p in (first, others))
    if kind == "saved":
        # Version 0.1.0 kept what it compared as floats.
        first = first.float() / 127.5 - 1
    rule = SkipRule(0.9, 1000)
    similar = SimilarFrameFilter(SEED, rule)
    similar.translated(first)
    for frame, other in enumerate(others):
        chance = 1 - (1 - formula(first, other)) / (1 - rule.threshold)
        drawn = frame_chance(SEED, frame)
        if abs(drawn - chance) > 1e-5:  # 1e-6 of similarity
            assert similar.skips(frame, other) == (drawn < chance)
        else:
            similar.skips(frame, other)


def test_the_similarity_of_bytes_is_exact():
    generator = torch.Generator().manual_seed(0)
    first, other = torch.randint(0, 256, (2, 512, 512, 3), generator=generator, dtype=torch.uint8)
    a, b = (2 * p.long() - 255 for p in (first, other))
    mixed, one, two = ((x * y).sum().item() for x, y in ((a, b), (a, a), (b, b)))
    similar = SimilarFrameFilter(SEED, SkipRule(0.5))
    similar.translated(first)
    assert similar._similarity(other) == mixed / (one * two) ** 0.5
    assert similar._similarity(first) == 1.0


def test_judging_a_frame_runs_nothing_in_torch():
    """So there is nothing to be read back; and a numpy array is no tensor made anew."""

    class Counted(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is not torch.ops.aten.detach.default:  # of .numpy()
                self.calls += 1
            return func(*args, **(kwargs or {}))

    pictures = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8).unbind()
    with Counted() as counted:
        decisions(SimilarFrameFilter(SEED, SkipRule(0.5)), pictures)
    assert counted.calls == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_latents_of_half_precision_are_compared(dtype):
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = decisions(SimilarFrameFilter(SEED, SkipRule(0.9)), latents[[0, 0, 1]])
    assert found == [False, True, False]

"""The nodes of long videos: loaded from stand-ins in the released layout, run, stopped, resumed."""

import pytest
import torch
from host_stream import core, node
from long_videos import StoppedError, forget, pictures, shown, text, times


def partial_folders(folders):
    return [path for path in (folders / "output" / "live2diff_partial").iterdir() if path.is_dir()]


@pytest.mark.parametrize("count", [1, 16, 21])
def test_a_video_has_the_frames_asked_for_eight_per_second(videos, folders, count):
    video = videos.make(frames=count)
    found = times(video)
    assert len(found) == count
    assert found == pytest.approx([index / 8 for index in range(count)])
    assert shown(video).shape == (count, 64, 64, 3)


def test_a_longer_video_begins_with_the_shorter_one(videos, folders):
    whole, part = shown(videos.make(frames=25)), shown(videos.make(frames=18))
    assert (whole[:18] == part).all()
    assert shown(videos.make(seconds=2.25, frames=99)).shape[0] == 18


def test_seed_steps_prompt_and_guidance_make_other_videos(videos, folders):
    usual = shown(videos.make(frames=2))
    for change in ({"seed": 4}, {"steps": 2}, {"positive": text(5)}, {"text_guidance": 2.0}):
        assert (shown(videos.make(frames=2, **change)) != usual).any(), change


def test_only_later_chunks_have_noise_added(videos, folders):
    """The first one is solved by DPM-Solver++, as published, and the others by DDIM."""
    usual, still = (shown(videos.make(frames=17, steps=3, eta=eta)) for eta in (1.0, 0.0))
    assert (still[:16] == usual[:16]).all()
    assert (still[16:] != usual[16:]).any()


def test_the_anchor_has_a_weight_of_its_own(videos, folders):
    usual = shown(videos.make(frames=17))
    anchored = shown(videos.make(frames=17, anchor_guidance=2.0))
    assert (anchored[:16] == usual[:16]).all(), "the first chunk has no anchor"
    assert (anchored[16:] != usual[16:]).any()


def test_other_words_count_from_the_next_chunk_on(videos, folders):
    usual = shown(videos.make(frames=25))
    schedule = node("prompts", "Live2DiffPromptSchedule").execute
    changed = schedule(text(1), text(9), 20, 0, "keep").args[0]
    found = shown(videos.make(frames=25, positive=changed))
    assert (found[:24] == usual[:24]).all()
    assert (found[24:] != usual[24:]).any()


def test_first_frames_stay_and_are_continued(videos, folders):
    given = pictures(18)
    found = shown(videos.make(frames=28, first_frames=given))
    assert len(found) == 28
    assert (found[:18] == (given * 255).round().byte().numpy()).all()
    # The first new frame follows from the last eight, and from the look of the first.
    moved, looks = given.clone(), given.clone()
    moved[-3], looks[0] = 1 - moved[-3], 1 - looks[0]
    for other in (moved, looks):
        again = shown(videos.make(frames=28, first_frames=other))
        assert (again[18:] != found[18:]).any()
    early = given.clone()
    early[5] = 1 - early[5]
    again = shown(videos.make(frames=28, first_frames=early))
    assert (again[18:] == found[18:]).all(), "what lies before the last eight does not matter"


def test_one_picture_is_repeated(videos, folders):
    found = shown(videos.make(frames=20, first_frames=pictures(1)))
    assert len(found) == 20
    assert (found[:16] == found[0]).all()
    assert (found[16] != found[0]).any()


@pytest.mark.parametrize("count", [2, 15])
def test_two_to_fifteen_first_frames_are_refused(videos, folders, count):
    with pytest.raises(ValueError, match=f"not with {count}"):
        videos.make(first_frames=pictures(count))
    video = videos.make(frames=count, seed=count)
    with pytest.raises(ValueError, match=f"not with {count}"):
        videos.make(first_video=video)


def test_more_first_frames_than_asked_for_all_stay(videos, folders):
    assert len(shown(videos.make(frames=4, first_frames=pictures(17)))) == 17


@pytest.mark.parametrize(
    "change, message",
    [
        ({"frames": 0}, "0 frames"),
        ({"width": 72}, "multiples of 64"),
        ({"height": 32}, "multiples of 64"),
        ({"steps": 0}, "steps must be"),
        ({"eta": 1.5}, "eta from 0 to 1"),
        ({"positive": text(1, width=768)}, "OpenCLIP-H"),
        ({"negative": [*text(1), *text(2)]}, "one text"),
        ({"positive": [[text(1)[0][0], {"control": object()}]]}, "control"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(videos, folders, change, message):
    with videos.stopping_at(None), pytest.raises(ValueError, match=message):
        videos.make(**change)
    assert not videos.calls
    assert not list((folders / "output").iterdir())


@pytest.mark.parametrize("stop", [1, 4])
def test_a_video_that_was_stopped_goes_on_to_the_same_frames(videos, folders, stop):
    with videos.stopping_at(None):
        whole = shown(videos.make(frames=27, steps=2))
        calls = videos.calls
    assert calls == 6
    forget(folders)
    with videos.stopping_at(stop), pytest.raises(StoppedError):
        videos.make(frames=27, steps=2)
    with videos.stopping_at(None):
        assert (shown(videos.make(frames=27, steps=2)) == whole).all()
        # Only the chunk in progress is made anew.
        assert videos.calls == calls - (stop - 1) // 2 * 2


def test_a_state_at_the_end_of_any_segment_goes_on_to_the_same_frames(videos, folders):
    """As after a kill: nothing but segments and states is there."""
    whole = shown(videos.make(frames=26, checkpoint_every=3))
    forget(folders)
    with videos.stopping_at(3), pytest.raises(StoppedError):
        videos.make(frames=26, checkpoint_every=3)
    (folder,) = partial_folders(folders)
    newest = max(folder.glob("state_*.safetensors"))
    newest.unlink()
    newest.with_suffix(".mkv").unlink(missing_ok=True)
    assert list(folder.glob("state_*.safetensors"))
    assert (shown(videos.make(frames=26, checkpoint_every=3)) == whole).all()


def test_the_memory_of_a_video_does_not_depend_on_its_length(videos, folders, pack):
    stream = core("streamingt2v.long_video").LongVideo
    spec = core("streamingt2v.spec").LongVideoSpec(
        videos.model, videos.vae, text(1), text(2), 64, 64, steps=1
    )
    made, request, sizes = stream(spec), torch.zeros(1, 1, 3, dtype=torch.uint8), set()
    with torch.inference_mode(), spec.open((8, 8), None) as opened:
        for frame in range(40):
            made.push(opened, request)
            if frame >= 16 and not (frame + 1) % 8:
                state = made.state_dict()
                sizes.add(sum(t.numel() * t.element_size() for t in state.values()))
        assert len(sizes) == 1
        assert sizes.pop() <= opened.state_bytes


def test_a_video_is_extended_at_the_models_size_and_rate(videos, folders):
    original = videos.make(frames=16, width=128)
    extended = videos.extend(original)
    assert times(extended) == pytest.approx([index / 8 for index in range(24)])
    assert shown(extended).shape == (24, 64, 64, 3)
    anew = videos.extend(original, positive=text(7))
    assert (shown(anew)[:16] == shown(extended)[:16]).all()
    assert (shown(anew)[16:] != shown(extended)[16:]).any()


def test_a_video_is_made_anew_from_a_chunk_on(videos, folders):
    first = videos.make(frames=32)
    anew = videos.extend(first, redo_from_chunk=1, positive=text(7))
    assert len(shown(anew)) == 16 + 8
    assert (shown(anew)[:16] == shown(first)[:16]).all()
    assert (shown(anew)[16:] != shown(first)[16:24]).any()


def test_the_anchor_may_be_that_of_the_last_scene(videos, folders):
    scenes = torch.cat([pictures(1).repeat(9, 1, 1, 1) * 0.2, pictures(1, 1).repeat(15, 1, 1, 1)])
    original = videos.make(frames=24, first_frames=scenes)
    usual = shown(videos.extend(original))
    last = shown(videos.extend(original, anchor="first frame of the last scene"))
    assert (last[:24] == usual[:24]).all()
    assert (last[24:] != usual[24:]).any()
    from_there = videos.make(frames=15, first_frames=scenes[9:10], seed=8)
    assert len(shown(from_there)) == 15

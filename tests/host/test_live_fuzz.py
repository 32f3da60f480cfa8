"""Stream Step cut, saved, loaded and stopped at random: the same frames as in one piece."""

import folder_paths
import pytest
import torch
from host_bank import banked
from host_stream import core, node, patched, prompt
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from live_stream_inputs import TinyVAE, pictures, step, stream
from stream_video import Calls, StoppedError

# Still pictures among changes, for the filter.
SHOWN = [0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 5, 5, 6]
MEMORIES = {
    "motion": lambda sd15, motion: patched(sd15, motion, 4, 2),
    "bank": lambda sd15, motion: banked(sd15, kind="queue"),
    "both": lambda sd15, motion: banked(patched(sd15, motion, 4, 2)),
}


@pytest.fixture(autouse=True)
def streams(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    registry = core("run.registry").STREAMS
    registry.clear()
    yield registry
    registry.clear()


@pytest.fixture
def calls(sd15):
    return Calls(sd15)


def save_and_load(streams):
    """As after a restart of the host: nothing of the stream is left but its file."""
    node("live_files", "Live2DiffSaveStream").execute("live", "live")
    streams.clear()
    node("live_files", "Live2DiffLoadStream").execute("live.safetensors [output]", "live", "once")


def skip(threshold=0.5, most=3):
    return node("options", "Live2DiffSimilarFrameFilter").execute(threshold, most).args[0]


def everything(guidance):
    """Two schedules, with blends and a reset, a filter, and three denoising steps."""
    follow = node("prompts", "Live2DiffPromptSchedule")
    options = node("options", "Live2DiffStreamOptions")
    first = follow.execute(prompt(0), prompt(5), 4, 2, "keep").args[0]
    return {
        "options": options.execute(guidance, 0.8, "fresh per frame", "lcm").args[0],
        "frame_filter": skip(),
        "positive": follow.execute(first, prompt(3), 8, 0, "reset").args[0],
        "negative": follow.execute(prompt(1), prompt(6), 5, 1, "keep").args[0],
        "cfg": 1.6,
        "denoise": 0.75,
    }


def fed(images, cuts, saves, model, streams, **settings):
    """Feed pieces of the sizes `cuts`, whatever stops them, and go on from where it stopped.

    Args:
        saves: pieces after which the stream is saved and loaded; 0 is after each stop.
    """
    done, at, pieces = {}, 0, list(cuts)
    while len(done) < len(images):
        size = pieces[0] if pieces else len(images)
        try:
            # Of a stream that has ended, only what is inside is taken.
            piece = images[min(at, len(images) - 1) :][:size]
            last = at + size >= len(images)
            found, first, _ = step(piece, model, TinyVAE(), finish=last, **settings)
        except StoppedError:
            at = streams.get("live").translator.session.frames_in
            if 0 in saves:
                save_and_load(streams)
            continue
        at, pieces = at + len(piece), pieces[1:]
        for number, picture in enumerate(found if first >= 0 else [], first):
            assert number not in done
            done[number] = picture
        if len(cuts) - len(pieces) in saves and not last:
            save_and_load(streams)
    assert not streams.streams()
    return torch.stack([done[number] for number in range(len(images))])


@pytest.mark.fuzz
@settings(
    deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    memory=st.sampled_from(list(MEMORIES)),
    guidance=st.sampled_from(["full", "self", "initialize"]),
    cuts=st.lists(st.integers(1, 8), min_size=3, max_size=9),
    saves=st.sets(st.integers(0, 8), max_size=4),
    stops=st.sets(st.integers(1, 20), max_size=3),
)
# Stopped when finished frames wait to be given out, and saved with them.
@example(memory="both", guidance="initialize", cuts=[8, 6], saves={0}, stops={8})
def test_nothing_that_happens_changes_a_frame(
    calls, sd15, motion, streams, memory, guidance, cuts, saves, stops
):
    """Calls in `stops` fail; see `fed`."""
    model, images = MEMORIES[memory](sd15, motion), pictures(7)[SHOWN]
    streams.clear()
    whole = stream(images, model, TinyVAE(), [len(images)], **everything(guidance))

    def stop(number):
        if number in stops:
            raise StoppedError

    calls.count, calls.then = 0, stop
    found = fed(images, cuts, saves, model, streams, **everything(guidance))
    calls.then = lambda number: None
    assert torch.equal(found, whole)


# A new prompt on a still picture, with a filter that skips what stays


STILL = {"denoise": 0.25, "cfg": 2.0, "frame_filter": None}
CHANGES = {"prompt": {"positive": prompt(5)}, "negative": {"negative": prompt(6)}}


def unfiltered(image, model, **changes):
    """Frames 0 to 3 of a still picture, the third and fourth with `changes`."""
    made = [{}, {}, changes, changes]
    return [step(image, model, TinyVAE(), stream="plain", **STILL, **c)[0] for c in made]


@pytest.mark.parametrize("memory", ["none", "motion"])
@pytest.mark.parametrize("loaded", [False, True], ids=["going on", "loaded"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_new_prompt_is_shown_at_once(calls, sd15, motion, streams, what, loaded, memory):
    model = sd15 if memory == "none" else patched(sd15, motion, 2, 1)
    image, change = pictures(1), CHANGES[what]
    expected = unfiltered(image, model, **change)
    still = {**STILL, "frame_filter": skip(0.9, 10)}
    first, again = (step(image, model, TinyVAE(), **still)[0] for _ in range(2))
    assert torch.equal(first, expected[0]) and torch.equal(again, first)
    if loaded:
        save_and_load(streams)
    changed, index, _ = step(image, model, TinyVAE(), **still, **change)
    assert index == 2 and not torch.equal(changed, again)
    if memory == "none":
        assert torch.equal(changed, expected[2])
    # Once shown, it is what is repeated.
    calls.count = 0
    assert torch.equal(step(image, model, TinyVAE(), **still, **change)[0], changed)
    assert not calls.count


def test_an_unread_negative_is_no_new_prompt(calls, sd15, streams):
    still = {**STILL, "cfg": 1.0, "frame_filter": skip(0.9, 10)}
    first = step(pictures(1), sd15, TinyVAE(), **still)[0]
    calls.count = 0
    again = step(pictures(1), sd15, TinyVAE(), negative=prompt(6), **still)[0]
    assert torch.equal(again, first) and not calls.count

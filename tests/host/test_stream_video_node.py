"""Stream Video stopped anywhere and queued again: one video, as if nothing had happened."""

import re
from importlib import import_module
from pathlib import Path

import av
import comfy.model_management
import comfy_api.latest
import folder_paths
import pytest
import torch
from clips import join, make_clip, sound_of
from host_bank import banked
from host_stream import PACK, core, node, patched, prompt
from safetensors import SafetensorError
from stream_video import (
    Calls,
    StoppedError,
    block_clip,
    block_pictures,
    translate_video,
    translated,
    two_stops,
)
from video_graphs import decode

# Still pictures among changes, for the filter.
SHOWN = [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 6, 7]


@pytest.fixture(autouse=True)
def folders(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


@pytest.fixture
def calls(sd15):
    return Calls(sd15)


def partial(folders):
    """The one folder of a run that was stopped."""
    (folder,) = (p for p in (folders / "out" / "live2diff_partial").iterdir() if p.is_dir())
    return folder


def follow(before, after, start, blend, memory):
    schedule = node("prompts", "Live2DiffPromptSchedule")
    return schedule.execute(before, after, start, blend, memory).args[0]


def everything(guidance):
    """Two schedules, one with a reset, a filter, and three denoising steps."""
    options = node("options", "Live2DiffStreamOptions")
    first = follow(prompt(0), prompt(5), 4, 2, "keep")
    return {
        "options": options.execute(guidance, 0.8, "fresh per frame", "lcm").args[0],
        "frame_filter": node("options", "Live2DiffSimilarFrameFilter").execute(0.5, 3).args[0],
        "positive": follow(first, prompt(3), 9, 0, "reset"),
        "negative": follow(prompt(1), prompt(6), 6, 1, "keep"),
        "cfg": 1.6,
        "denoise": 0.75,
    }


@pytest.mark.parametrize("memory, guidance", [("queue", "full"), ("both", "initialize")])
def test_stopped_anywhere_and_queued_again_is_uninterrupted(
    calls, sd15, motion, folders, caplog, memory, guidance
):
    model = banked(sd15, kind="queue")
    if memory == "both":
        model = banked(patched(sd15, motion, 4, 2), kind="merge")
    clip, settings = block_clip(folders, SHOWN), everything(guidance)
    whole, all_calls = translated(clip, model, **settings), calls.count
    assert len(whole) == len(SHOWN)
    for seed in range(2):
        for stop in two_stops(all_calls, seed):
            with calls.stopping_at(stop), pytest.raises(StoppedError):
                translate_video(clip, model, **settings)
        with caplog.at_level("INFO"):
            assert torch.equal(translated(clip, model, **settings), whole)
    assert caplog.text.count("going on at frame") == 2


def test_a_change_between_two_runs_starts_over(calls, sd15, folders, caplog):
    """No frame of the first run is in the second one's video."""
    clip, mask = block_clip(folders, range(8)), torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1

    def positive(strength):
        masked = prompt(0, mask=mask, mask_strength=strength, set_area_to_bounds=False)
        return [*masked, *prompt(5)]

    with calls.stopping_at(7), pytest.raises(StoppedError):
        translate_video(clip, sd15, positive=positive(1.0))
    assert list(partial(folders).glob("state_*.safetensors"))
    with caplog.at_level("INFO"):
        found = translated(clip, sd15, positive=positive(9.0))
    assert "going on" not in caplog.text
    assert torch.equal(found, translated(clip, sd15, positive=positive(9.0)))
    before = translated(clip, sd15, positive=positive(1.0))
    assert not any(torch.equal(*pair) for pair in zip(found, before, strict=True))


# Trimmed


def part(clip, start, duration=0.0):
    video = comfy_api.latest.InputImpl.VideoFromFile
    return video(str(clip), start_time=start, duration=duration)


def test_a_trimmed_video_gives_exactly_its_part(sd15, folders):
    clip = block_clip(folders, range(15))
    alone = make_clip(
        folders, "prores", ticks=range(5), images=block_pictures(range(15))[5:10], name="alone"
    )
    found = translated(part(clip, 0.2, 0.2), sd15)
    assert torch.equal(found, translated(alone, sd15))


def test_what_is_left_of_a_trimmed_video_has_its_own_sound(calls, sd15, folders):
    clip = make_clip(folders, frames=25, size=(64, 64), sounds=("aac",))
    with calls.stopping_at(10), pytest.raises(StoppedError):
        translate_video(part(clip, 0.4), sd15)
    sound = [data for _, data in sound_of(clip)]
    times = [float(time) for time, _ in sound_of(clip)]
    left = [data for _, data in sound_of(partial(folders) / "partial.mp4")]
    first = sound.index(left[0])
    # A packet lasts 21 ms; as many as the frames that are finished.
    assert times[first] == pytest.approx(0.4, abs=0.03)
    assert left == sound[first : first + len(left)] and len(left) < len(sound) / 2


# Joined


def test_a_joined_recording_has_all_frames_and_sound_stopped_or_not(
    calls, sd15, folders, monkeypatch
):
    """`cat a.ts a.ts`: twice the frames, twice the sound, and a warning on the node."""
    shown, progress = [], import_module(f"{PACK}.nodes.progress")
    monkeypatch.setattr(progress, "show_text", lambda _, text: shown.append(text))
    clip = make_clip(folders, "h264_ts", frames=10, size=(64, 64), sounds=("aac",))
    joined = join(clip, clip)
    video = translate_video(joined, sd15).get_stream_source()
    whole = translated(joined, sd15)
    assert len(whole) == 20
    assert "Warning: input video: Time stamps jump back" in shown[-1]
    with av.open(video) as container:
        lengths = [float(s.duration * s.time_base) for s in container.streams]
    assert lengths == pytest.approx([0.8, 0.8], abs=0.1)
    found = [data for _, data in sound_of(video)]
    assert len(found) == 2 * len(sound_of(clip))
    with calls.stopping_at(17), pytest.raises(StoppedError):
        translate_video(joined, sd15)
    assert torch.equal(translated(joined, sd15), whole)


# What goes wrong


def full_from(number, state_file):
    """Make `save_file` fail like on a full disk, from its `number`-th call on; list its calls."""
    saves, save_file = [], state_file.save_file

    def save(tensors, path, metadata):
        saves.append(path)
        if len(saves) >= number:
            open(path, "wb").close()
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(tensors, path, metadata)

    return save


def test_a_state_that_cannot_be_saved_is_told_of_and_the_run_goes_on(
    sd15, motion, folders, monkeypatch, caplog
):
    clip, model = block_clip(folders, range(12)), patched(sd15, motion, 4, 2)
    whole, state_file = translated(clip, model), core("run.state_file")
    with monkeypatch.context() as patch:
        patch.setattr(state_file, "save_file", full_from(2, state_file))
        assert torch.equal(translated(clip, model), whole)
    assert "was not saved: The stream's state cannot be written" in caplog.text


def test_a_full_disk_at_the_stop_says_where_the_next_run_begins(
    calls, sd15, motion, folders, monkeypatch, caplog
):
    clip, model = block_clip(folders, range(12)), patched(sd15, motion, 4, 2)
    whole, state_file = translated(clip, model), core("run.state_file")
    with monkeypatch.context() as patch, calls.stopping_at(12):
        patch.setattr(state_file, "save_file", full_from(2, state_file))
        with pytest.raises(StoppedError):
            translate_video(clip, model)
    assert not list(partial(folders).glob("*.part"))
    (state,) = partial(folders).glob("state_*.safetensors")
    told = re.search(
        r"stopped after (\d+) finished frames. They are in (.*partial.mp4). The state behind them "
        r"could not be saved: .* goes on from frame (\d+); the file is kept",
        caplog.text,
    )
    assert state.stem == f"state_{int(told[3]):09d}"
    done = decode(Path(told[2]))[1]
    assert len(done) == int(told[1]) > 0 and torch.equal(torch.from_numpy(done), whole[: len(done)])
    with caplog.at_level("INFO"):
        assert torch.equal(translated(clip, model), whole)
    assert f"going on at frame {told[3]}" in caplog.text


def test_going_on_is_shown_and_can_be_stopped(calls, sd15, folders, monkeypatch):
    """Frames before the place are decoded again, which may take minutes."""
    clip, progress = block_clip(folders, range(12)), import_module(f"{PACK}.nodes.progress")
    whole = translated(clip, sd15)
    with calls.stopping_at(11), pytest.raises(StoppedError):
        translate_video(clip, sd15)
    shown = []

    def stop_at_second(_, text):
        shown.append(text)
        if len(shown) == 2:
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(core("run.file"), "FRAMES_PER_SKIP", 2)
    with monkeypatch.context() as patch:
        patch.setattr(progress, "show_text", stop_at_second)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            translate_video(clip, sd15)
    # The tenth frame had entered when the call for the eleventh was stopped.
    assert shown == [f"Going on at frame 10: finding it, {read} read" for read in (0, 2)]
    assert torch.equal(translated(clip, sd15), whole)

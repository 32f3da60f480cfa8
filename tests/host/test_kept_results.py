"""Results that wait to be saved, and the node that lists and removes what is kept."""

import gc
import json
from importlib import import_module
from pathlib import Path

import folder_paths
import pytest
from host_stream import PACK, core, node
from stream_video import Calls, StoppedError, block_clip, translate_video


@pytest.fixture(autouse=True)
def folders(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    return tmp_path


@pytest.fixture
def kept(monkeypatch):
    """The module, and how the prompts have ended: True, False, or None."""
    module = import_module(f"{PACK}.nodes.kept_results")
    ends = {}
    results = module.KeptResults(ends.get)
    monkeypatch.setattr(results, "_watch", lambda: None)
    monkeypatch.setattr(module, "RESULTS", results)
    monkeypatch.setattr(import_module(f"{PACK}.nodes.video"), "RESULTS", results)
    monkeypatch.setattr(import_module(f"{PACK}.nodes.partial_results"), "RESULTS", results)
    return module, ends


def run_in_prompt(prompt_id, clip, model, **changes):
    from comfy_execution.utils import CurrentNodeContext

    with CurrentNodeContext(prompt_id, "1"):
        return translate_video(clip, model, forget=False, **changes)


def test_a_result_goes_when_it_was_saved_and_no_video_reads_it(folders, sd15, kept):
    module, ends = kept
    video = run_in_prompt("first", block_clip(folders, range(5)), sd15)
    path = Path(video.get_stream_source())
    module.RESULTS.sweep()
    assert path.is_file(), "its prompt has not ended"
    ends["first"] = True
    module.RESULTS.sweep()
    assert path.is_file(), "the host may give the VIDEO to another prompt"
    del video
    gc.collect()
    module.RESULTS.sweep()
    assert not path.parent.exists()


def test_a_result_that_was_not_saved_stays_and_is_named(folders, sd15, kept, caplog):
    module, ends = kept
    path = Path(run_in_prompt("p", block_clip(folders, range(5)), sd15).get_stream_source())
    ends["p"] = False
    module.RESULTS.sweep()
    gc.collect()
    module.RESULTS.sweep()
    assert path.is_file() and f"is kept: {path}. Queue the same inputs again" in caplog.text
    # Saved now, by another prompt, and forgotten with it.
    video = run_in_prompt("again", block_clip(folders, range(5)), sd15)
    assert Path(video.get_stream_source()) == path
    del video
    ends["again"] = True
    gc.collect()
    module.RESULTS.sweep()
    assert not path.exists()


def test_a_later_prompt_that_fails_keeps_a_result_that_was_saved_before(folders, sd15, kept):
    module, ends = kept
    clip = block_clip(folders, range(5))
    first = run_in_prompt("first", clip, sd15)
    path, ends["first"] = Path(first.get_stream_source()), True
    module.RESULTS.sweep()
    again = run_in_prompt("again", clip, sd15)
    ends["again"] = False
    del first, again
    gc.collect()
    module.RESULTS.sweep()
    assert path.is_file()


def stop_one(clip, model, calls, **changes):
    with calls.stopping_at(7), pytest.raises(StoppedError):
        translate_video(clip, model, forget=False, **changes)


def partial_results(remove=""):
    return node("partial_results", "Live2DiffPartialResults").execute(remove).args[0]


def test_the_node_lists_and_removes(folders, sd15, kept):
    assert partial_results() == "There are no partial results."
    calls, clip = Calls(sd15), block_clip(folders, range(8))
    for seed in (1, 2, 3):
        stop_one(clip, sd15, calls, seed=seed)
    lines = partial_results().splitlines()
    assert len(lines) == 3
    assert all("clip.mov, 6 frames saved" in line and "unused for 0 h" in line for line in lines)
    name = lines[0].split(":")[0]
    after = partial_results(f" {name} ").splitlines()
    assert after[0] == f"Removed {lines[0]}" and after[1:] == lines[1:]
    with pytest.raises(ValueError, match="there is none of that name"):
        partial_results(name)
    held = core("run.folder_lock").holding
    busy = folders / "out" / "live2diff_partial" / lines[1].split(":")[0]
    with held(busy):
        with pytest.raises(ValueError, match="a run is using it"):
            partial_results(busy.name)
        assert len(partial_results("all").splitlines()) == 2 and busy.exists()
    assert partial_results("all").splitlines()[1:] == ["There are no partial results."]


@pytest.mark.parametrize("name", ["../..", "/", ".", "..", "*", "../out"])
def test_names_that_lead_elsewhere_remove_nothing(folders, sd15, kept, name):
    stop_one(block_clip(folders, range(8)), sd15, Calls(sd15))
    before = sorted(str(path) for path in folders.rglob("*"))
    with pytest.raises(ValueError, match="there is none of that name"):
        partial_results(name)
    assert sorted(str(path) for path in folders.rglob("*")) == before


def test_folders_that_are_not_ours_are_not_listed(folders, kept):
    root = folders / "out" / "live2diff_partial"
    (root / "photos").mkdir(parents=True)
    (root / "photos" / "segment_1.mp4").write_text("mine")
    (root / "link").symlink_to(folders)
    assert partial_results("all") == "There are no partial results."
    assert (root / "photos" / "segment_1.mp4").exists() and (root / "link").exists()


@pytest.mark.parametrize(
    "text, days",
    [
        (None, 30),
        ("{", 30),
        ("[1]", 30),
        (json.dumps({"Comfy.Other": 3}), 30),
        (json.dumps({"Live2Diff.PartialDays": 3}), 3),
        (json.dumps({"Live2Diff.PartialDays": "7"}), 7),
        (json.dumps({"Live2Diff.PartialDays": None}), 30),
        (json.dumps({"Live2Diff.PartialDays": -4}), 0),
    ],
)
def test_limits_come_from_the_settings(folders, kept, text, days):
    module, _ = kept
    if text is not None:
        path = folders / "user" / "default" / "comfy.settings.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert module.partial_limits() == core("run.partial_folders").PartialLimits(days, 200)


def test_a_stopped_run_beyond_the_limit_goes_on_all_the_same(folders, sd15, kept, caplog):
    """The limits are applied after a run, not before it."""
    import os

    calls, clip = Calls(sd15), block_clip(folders, range(8))
    stop_one(clip, sd15, calls)
    for path in (folders / "out" / "live2diff_partial").rglob("*"):
        os.utime(path, (0, 0))
    with caplog.at_level("INFO"):
        translate_video(clip, sd15)
    assert "going on at frame" in caplog.text


def test_a_result_in_use_is_not_removed(folders, sd15, kept):
    """Neither one that a VIDEO reads, nor one whose prompt still runs."""
    video = run_in_prompt("p", block_clip(folders, range(5)), sd15)
    path = Path(video.get_stream_source())
    assert "complete" in partial_results("all") and path.is_file()
    with pytest.raises(ValueError, match="a VIDEO in ComfyUI's memory still uses it"):
        partial_results(path.parent.name)
    del video
    gc.collect()
    assert "complete" in partial_results("all") and path.is_file()
    kept[1]["p"] = False
    assert partial_results("all").startswith("Removed") and not path.exists()


def test_two_results_of_one_prompt_both_go(folders, sd15, kept):
    module, ends = kept
    clip = block_clip(folders, range(5))
    paths = [Path(run_in_prompt("p", clip, sd15, seed=seed).get_stream_source()) for seed in (1, 2)]
    ends["p"] = True
    gc.collect()
    module.RESULTS.sweep()
    assert not any(path.exists() for path in paths)

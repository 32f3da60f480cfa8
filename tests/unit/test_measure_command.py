"""measure.py: files in, a table or JSON out."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rendered_clips as rendered
from clips import make_lossless
from PIL import Image

from live2diff_core.metrics import command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(tmp_path):
    """An input, a steady translation of it, and one that flickers."""
    clip = rendered.moving_square(4).frames
    flickers = rendered.brighter(clip // 2, 20)
    videos = {"input": clip, "steady": clip // 2, "flickers": flickers, "short": clip[:2]}
    return {
        name: str(make_lossless(tmp_path, frames, f"{name}.mkv")) for name, frames in videos.items()
    }


@pytest.fixture
def run(capsys):
    """Run the command in this process; return status, standard output and error."""

    def run(*arguments):
        status = command.main(["--flow", "none", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def test_several_outputs_are_compared_in_a_table(run, files):
    status, out, _ = run(files["input"], files["steady"], files["flickers"])
    assert status == command.OK
    lines = out.splitlines()
    assert lines[0].split() == ["steady.mkv", "flickers.mkv"]
    (flicker,) = (line for line in lines if line.startswith("Flicker in still regions"))
    steady, flickers = map(float, flicker.split()[-2:])
    assert steady < 1e-3 and flickers == pytest.approx(20 / 255, abs=1e-3)


def test_json_has_an_entry_per_output(run, files):
    outputs = [files["steady"], files["flickers"]]
    status, out, _ = run(files["input"], *outputs, "--json")
    told = json.loads(out)
    assert status == command.OK
    assert [each["output"] for each in told] == outputs
    assert all(each["input"] == files["input"] and each["frames"] == 4 for each in told)
    assert told[1]["metrics"]["flicker"] == pytest.approx(20 / 255)


def test_one_video_that_cannot_be_measured_does_not_stop_the_others(run, files):
    status, out, err = run(files["input"], "missing.mp4", files["short"], files["steady"], "--json")
    told = json.loads(out)
    assert status == command.FAILED
    assert [Path(each["output"]).stem for each in told] == ["steady", "missing", "short"]
    assert "metrics" in told[0] and "missing.mp4" in told[1]["error"]
    assert "The output has 2 frames, the input more" in told[2]["error"]
    assert f"error: {files['short']}: The output has 2 frames" in err


def test_flow_is_estimated_unless_it_is_switched_off(run, files):
    pytest.importorskip("cv2")
    arguments = files["input"], files["steady"], "--json"
    assert "warp_error" not in json.loads(run(*arguments)[1])[0]["metrics"]
    (told,) = json.loads(run(*arguments, "--flow", "DIS")[1])
    assert 0 <= told["metrics"]["warp_error"] < 1e-3
    assert told["notes"]["Optical flow"] == "OpenCV's DIS"


def test_raft_is_looked_for_in_comfyuis_folder(run, files, tmp_path):
    status, _, err = run(
        files["input"], files["steady"], "--flow", "RAFT", "--comfyui", tmp_path / "comfy"
    )
    assert status == command.USAGE
    assert str(tmp_path / "comfy" / "models" / "optical_flow") in err and "choose DIS" in err


def test_sizes_are_matched_if_asked(run, tmp_path):
    large = rendered.moving_square(3, size=(160, 96)).frames
    before = make_lossless(tmp_path, large, "a.mkv")
    after = make_lossless(tmp_path, np.ascontiguousarray(large[:, 16:80, 48:112]), "b.mkv")
    status, _, err = run(before, after)
    assert status == command.FAILED
    assert "input is 160x96 pixels, that of the output 64x64" in err and "--match-size" in err
    status, out, _ = run(before, after, "--match-size")
    assert status == command.OK and "64x64" in out


def test_pictures_are_written_if_asked(run, files, tmp_path):
    folder = tmp_path / "new" / "pictures"
    assert run(files["input"], files["steady"], "--pictures", folder, "--row", 0)[0] == command.OK
    assert {path.name for path in folder.iterdir()} == {"steady-plot.png", "steady-xt.png"}
    image = np.array(Image.open(folder / "steady-xt.png"))
    assert (image[0, : rendered.SIZE[0]] == rendered.moving_square(4).frames[0, 0]).all()


def test_networks_need_comfyuis_code(run, files, tmp_path, monkeypatch):
    """A note where none is asked for, an error where one is and ComfyUI is not there."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status, _, err = run(
        files["input"], files["steady"], "--depth-model", "x.pt", "--comfyui", tmp_path
    )
    assert status == command.USAGE
    assert f"which is not in {tmp_path}. Give its folder with --comfyui" in err


def test_the_row_is_checked(run, files):
    status, _, err = run(files["input"], files["steady"], "--row", 3)
    assert status == command.FAILED and "0 to 1 of the height, not 3.0" in err


def test_the_script_runs_from_anywhere(files, tmp_path):
    line = [sys.executable, ROOT / "measure.py", files["input"], files["input"], "--json"]
    done = subprocess.run(
        [*line, "--flow", "none"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert json.loads(done.stdout)[0]["metrics"]["flicker"] == 0


def test_the_script_says_which_python_it_needs(tmp_path):
    """As another Python than ComfyUI's does, without its packages."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "measure.py", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "is missing; run this with the Python that runs ComfyUI" in done.stderr

"""The demo and the command line: Python versions, ports, models, graph, pictures."""

import json
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import dev
from devtools import commands, demo, media, models, server, standins
from devtools.console import ToolError
from folder_queue.answers import Failure
from folder_queue.refusal import refusal_in_body

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("version", [(3, 9, 1), (3, 13, 0), (2, 7, 18)])
def test_other_pythons_are_refused_in_one_line(version):
    line = dev.python_problem(version)
    assert "3.10, 3.11 or 3.12" in line and f"{version[0]}.{version[1]}" in line


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 11, 7), (3, 12, 1)])
def test_supported_pythons(version):
    assert dev.python_problem(version) is None


def test_a_taken_port_is_one_line_without_traceback():
    with socket.socket() as taken:
        taken.bind((server.LOOPBACK, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(ROOT / "dev.py"), "demo", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: port {port} is taken")
    assert len(done.stderr.splitlines()) == 1


def test_a_free_port_is_found():
    assert 1024 < server.choose_port() < 65536


def test_skips_are_counted_by_reason():
    report = (
        '<testsuites><testsuite><testcase><skipped message="no GPU"/></testcase>'
        '<testcase><skipped message="no GPU"/></testcase><testcase/></testsuite></testsuites>'
    )
    assert commands.skip_lines(report) == ["Skipped 2 test(s): no GPU"]
    assert commands.skip_lines("<testsuites/>") == ["Nothing was skipped."]


def checkpoint(path, context):
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    header = json.dumps({key: {"dtype": "F16", "shape": [320, context], "data_offsets": [0, 0]}})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())


def test_only_sd15_checkpoints_count(tmp_path):
    checkpoint(tmp_path / "checkpoints" / "a-sd2.safetensors", 1024)
    (tmp_path / "checkpoints" / "b-broken.safetensors").write_bytes(b"no")
    assert models.find_model(models.WANTED["checkpoint"], [tmp_path]) is None
    checkpoint(tmp_path / "checkpoints" / "sub" / "c.safetensors", 768)
    found = models.find_model(models.WANTED["checkpoint"], [tmp_path])
    assert Path(found) == Path("sub/c.safetensors")


@pytest.fixture
def real_models(tmp_path):
    folder = tmp_path / "real"
    checkpoint(folder / "checkpoints" / "mine.safetensors", 768)
    for name in (
        *("live2diff/live2diff.ckpt", "loras/lcm-lora-sdv1-5.safetensors"),
        *("vae_approx/taesd_encoder.safetensors", "vae_approx/taesd_decoder.safetensors"),
        "midas/dpt_hybrid_384.pt",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def fake_standins(tmp_path, monkeypatch):
    folder = tmp_path / "standins"
    monkeypatch.setattr(standins, "ensure_standins", lambda: folder)
    monkeypatch.setattr(standins, "standins_dir", lambda: folder)
    return folder


def test_real_models_are_used_when_all_are_there(tmp_path, real_models, fake_standins):
    chosen = models.choose_models([real_models], {}, tmp_path / "scratch")
    assert not chosen.missing
    assert fake_standins not in chosen.folders
    assert chosen.names["checkpoint"] == "mine.safetensors"
    assert chosen.names["depth_model"] == "dpt_hybrid_384.pt"


def test_one_missing_file_means_the_sample_model_and_is_named(
    tmp_path, real_models, fake_standins, capsys, monkeypatch
):
    monkeypatch.setattr(models, "sample_model_is_there", lambda: True)
    (real_models / "live2diff" / "live2diff.ckpt").unlink()
    chosen = models.choose_models([real_models], {}, tmp_path / "scratch")
    assert chosen.sample and fake_standins not in chosen.folders
    assert set(chosen.names) == {"motion_module"}
    models.announce(chosen, real_models)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "sample model" in said and "Leoxing/Live2Diff" in said
    assert "taesd" not in said and "stand-in" not in said


def test_without_the_sample_model_a_missing_file_means_standins(
    tmp_path, real_models, fake_standins, monkeypatch
):
    (real_models / "live2diff" / "live2diff.ckpt").unlink()
    monkeypatch.setattr(models, "sample_model_is_there", lambda: False)
    chosen = models.choose_models([real_models], {}, tmp_path / "scratch")
    assert not chosen.sample and fake_standins in chosen.folders


def test_beside_a_chosen_file_a_missing_one_means_standins(
    tmp_path, real_models, fake_standins, capsys
):
    (real_models / "live2diff" / "live2diff.ckpt").unlink()
    own = tmp_path / "own.safetensors"
    checkpoint(own, 768)
    chosen = models.choose_models([real_models], {"checkpoint": str(own)}, tmp_path / "scratch")
    # Before the real folder, whose files have other widths and may have the same names.
    assert chosen.folders.index(fake_standins) < chosen.folders.index(real_models)
    assert not chosen.sample
    assert chosen.names["motion_module"] == Path(standins.MOTION_MODULE).name
    models.announce(chosen, real_models)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "texture, not art" in said and "Leoxing/Live2Diff" in said
    assert "taesd" not in said


def test_a_chosen_file_wins_and_is_linked(tmp_path, real_models, fake_standins):
    (real_models / "live2diff" / "live2diff.ckpt").unlink()
    own = tmp_path / "own.ckpt"
    own.write_text("weights")
    scratch = tmp_path / "scratch"
    chosen = models.choose_models([real_models], {"motion_module": str(own)}, scratch)
    assert chosen.names["motion_module"] == "own.ckpt"
    assert (scratch / "live2diff" / "own.ckpt").read_text() == "weights"
    assert chosen.folders[0] == scratch
    with pytest.raises(ToolError, match="there is no file gone.ckpt"):
        models.choose_models([real_models], {"motion_module": "gone.ckpt"}, scratch)


def test_graph_is_patched_by_class():
    graph = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": ""}},
        "2": {"class_type": "Live2DiffLoadMotionModule", "inputs": {"motion_module": ""}},
        "3": {"class_type": "ImageScale", "inputs": {"width": 1, "height": 1}},
        "4": {"class_type": "VAELoader", "inputs": {"vae_name": "taesd"}},
    }
    demo.patch_graph(graph, "clip.mp4", {"motion_module": "m.ckpt"})
    demo.set_size(graph, (256, 144))
    assert graph["1"]["inputs"] == {"file": "clip.mp4"}
    assert graph["2"]["inputs"] == {"motion_module": "m.ckpt"}
    assert graph["3"]["inputs"] == {"width": 256, "height": 144}
    assert graph["4"]["inputs"] == {"vae_name": "taesd"}


def test_another_prompt_replaces_the_positive_one():
    graph = json.loads(demo.WORKFLOW.read_text())
    demo.set_prompt(graph, "neon lights")
    texts = [n["inputs"]["text"] for n in graph.values() if n["class_type"] == "CLIPTextEncode"]
    assert texts.count("neon lights") == 1 and len(texts) == 2


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((256, 256), 256, (256, 256)),
        ((1920, 1080), 512, (512, 288)),
        ((101, 57), 512, (104, 56)),
        ((2000, 4), 256, (256, 8)),
    ],
)
def test_working_size(size, longest, expected):
    assert demo.working_size(size, longest) == expected


def test_pictures_of_a_short_clip(tmp_path):
    before, after = tmp_path / "before.mp4", tmp_path / "after.mp4"
    media.write_video(before, media.sample_frames(5, 64))
    media.write_video(after, media.sample_frames(5, 32))
    assert media.count_frames(before) == 5
    assert media.frame_size(before) == (64, 64)
    media.write_side_by_side(tmp_path / "both.mp4", before, after)
    assert media.frame_size(tmp_path / "both.mp4") == (64, 32 + media.LABEL_HEIGHT)
    assert media.count_frames(tmp_path / "both.mp4") == 5
    media.write_contact_sheet(tmp_path / "sheet.png", before, after, every=2)
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_no_video_is_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ToolError, match="cannot read a video"):
        media.count_frames(tmp_path / "text.mp4")


def test_a_refusal_names_the_nodes():
    graph = {"7": {"class_type": "LoadVideo", "inputs": {}}}
    body = {
        "error": {"message": "Prompt outputs failed validation", "details": ""},
        "node_errors": {"7": {"errors": [{"message": "Value not in list", "details": "file"}]}},
    }
    assert str(refusal_in_body(json.dumps(body), graph)) == (
        "the server refused the prompt: node 7 (LoadVideo): Value not in list file"
    )
    assert refusal_in_body("no json", graph) is None


def test_a_failure_carries_the_nodes_words_and_traceback():
    data = {
        "node_id": "3",
        "node_type": "Live2DiffApply",
        "exception_message": "wrong model\n",
        "traceback": ["line one\n", "line two\n"],
    }
    failure = Failure.parse({"type": "execution_error", "data": data})
    assert failure.text == "node 3 (Live2DiffApply) failed: wrong model"
    assert failure.traceback == "line one\nline two\n"

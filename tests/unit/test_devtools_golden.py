"""`dev.py golden`: its command line, its processes, and how it tells our waits from the host's."""

import warnings

import pytest
import torch

import dev
from devtools import commands, golden_command, golden_device
from devtools.golden_measures import SYNCHRONIZING, memory_over_time, noting_waits
from devtools.paths import REPO


def arguments(*given):
    return commands.golden_arguments(dev.build_parser().parse_args(["golden", *given]))


def test_the_command_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert arguments() == ["--device=cpu"]
    assert arguments("traces") == [str(tmp_path / "traces"), "--device=cpu"]
    given = arguments("--device", "cuda", "--dtype", "float16", "--dtype", "bfloat16")
    assert given == ["--device=cuda", "--dtype=float16", "--dtype=bfloat16"]
    options = golden_command.build_parser().parse_args(given)
    assert options.folder == REPO / "tests" / "data"
    assert (options.device, options.dtype) == ("cuda", ["float16", "bfloat16"])


def test_without_traces(tmp_path, capsys):
    assert golden_command.main([str(tmp_path)]) == 2
    assert "No traces to check" in capsys.readouterr().err


def test_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert golden_command.main(["--device", "cuda"]) == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
    assert golden_command.main(["--device", "tpu"]) == 2
    assert "takes cpu or cuda, not tpu" in capsys.readouterr().err


@pytest.fixture
def statuses(monkeypatch):
    """A GPU, and processes that end with the statuses in this list."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def call(command, env):
        asked.append([part for part in command if part.startswith("--")][:2])
        return given.pop(0)

    given = []
    monkeypatch.setattr(golden_device.subprocess, "call", call)
    return given, asked


def test_every_part_runs_with_and_without_dynamic_vram(statuses, capsys):
    given, asked = statuses
    given += [0, 0, 0, 0]
    assert golden_command.main(["--device", "cuda"]) == 0
    assert asked == [
        [f"--part={part}", f"--dynamic-vram={dynamic}"]
        for part in ("checks", "speed")
        for dynamic in ("off", "on")
    ]
    assert "All checks on the device passed." in capsys.readouterr().out


def test_a_failed_part_is_named_and_a_missing_one_is_said(statuses, capsys):
    given, _ = statuses
    given += [0, golden_device.SKIPPED, 1, 0]
    assert golden_command.main(["--device", "cuda"]) == 1
    out = capsys.readouterr().out
    assert "dynamic-vram=on checks SKIPPED" in out and "FAILED: speed with dynamic VRAM off" in out


def wait_in(path, message=f"called a {SYNCHRONIZING}"):
    """Warn as torch does, from a line of the file `path`."""
    code = compile("def wait(warn, text):\n    warn(text)\n", str(path), "exec")
    module = {}
    exec(code, module)
    module["wait"](warnings.warn, message)


def test_waits_are_told_apart_by_the_innermost_line():
    modes = []
    with noting_waits(modes.append) as waits:
        wait_in(REPO / "live2diff_core" / "some.py")
        wait_in(REPO / "live2diff_core" / "some.py")
        wait_in("/somewhere/ComfyUI/comfy/other.py")
        wait_in("/somewhere/site-packages/torch/x.py")
        wait_in(REPO / "nodes" / "some.py", "another warning")
    assert modes == ["warn", "default"]
    assert waits.ours == {"some.py:2 in wait": 2}
    assert waits.others == {"other.py:2 in wait": 1, "elsewhere": 1}


def test_memory_that_grows_is_seen():
    held = []
    flat = memory_over_time(lambda: None, lambda: 7, early=10, late=40)
    grown = memory_over_time(lambda: held.append(0), lambda: len(held), early=10, late=40)
    # Such as a feature bank, which holds more in every fourth frame.
    beating = memory_over_time(lambda: held.append(0), lambda: len(held) % 4, early=10, late=40)
    assert flat == (7, 7) and grown == (10, 40) and beating == (3, 3)

"""The tools' environment: pins, error lines, folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devtools import environment, paths
from devtools.console import ToolError

ROOT = Path(__file__).resolve().parents[2]
PINS = ["torch==2.11.0", "numpy>=1.25\nscipy\n"]


def digest(texts, python=(3, 11), machine="linux x86_64"):
    return environment.pins_hash(texts, python, machine)


def test_hash_ignores_comments_and_blank_lines():
    commented = ["# why\ntorch==2.11.0  # pinned", "\nnumpy>=1.25\n\n   # more\nscipy"]
    assert digest(PINS) == digest(commented)


@pytest.mark.parametrize(
    "changed",
    [
        digest(["torch==2.11.1", PINS[1]]),
        digest([*PINS, "av"]),
        digest(PINS, python=(3, 12)),
        digest(PINS, machine="darwin arm64"),
    ],
)
def test_hash_changes_with_pins_python_and_platform(changed):
    assert changed != digest(PINS)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk is full"),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError'\n"
            "ERROR: Could not find a version that satisfies the requirement av (from versions: )",
            "registry cannot be reached",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement av==9 "
            "(from versions: none)\nERROR: No matching distribution found for av==9",
            "cannot be reached, or has no av==9",
        ),
        (
            "Collecting nope\nERROR: Could not find a version that satisfies nope==9\n"
            "ERROR: No matching distribution found for nope==9",
            "satisfies nope==9",
        ),
        ("", "no message"),
    ],
)
def test_pip_failures_become_one_line(output, words):
    line = environment.explain_pip_failure(output)
    assert words in line and "\n" not in line


@pytest.mark.parametrize(
    ("platform", "env", "folder"),
    [
        ("linux", {}, "home/.cache"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg"),
        ("darwin", {"XDG_CACHE_HOME": "xdg"}, "home/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "local"}, "local"),
        ("win32", {}, "home/AppData/Local"),
    ],
)
def test_cache_root_of_each_system(platform, env, folder):
    assert paths.user_cache_root(platform, env, Path("home")) == Path(folder)


def test_cache_override(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE2DIFF_CACHE", str(tmp_path / "new"))
    assert paths.cache_dir() == tmp_path / "new"
    assert (tmp_path / "new").is_dir()


def test_unusable_cache_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIVE2DIFF_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(ToolError, match="cannot make the cache folder"):
        paths.cache_dir()


def test_full_disk_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(ToolError, match="make room, or set LIVE2DIFF_CACHE"):
        paths.require_free_space(tmp_path, 1e9, "everything")


def test_second_holder_waits_for_the_first(tmp_path):
    """A lock is the system's: another process waits for it, and gets it when the first is done."""
    code = (
        "import sys, time\nfrom devtools.paths import exclusive\n"
        "with exclusive('thing'):\n"
        "    print('held', flush=True)\n    time.sleep(float(sys.argv[1]))"
    )
    env = {**os.environ, "LIVE2DIFF_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen([*command, "1"], env=env, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        second = subprocess.run(
            [*command, "0"], env=env, capture_output=True, text=True, timeout=60
        )
    assert second.stdout.splitlines() == [
        "Waiting for another run that is preparing thing ...",
        "held",
    ]


def test_a_half_made_environment_is_made_again(tmp_path, monkeypatch):
    """Without the stamp, what is there is removed; with it, nothing runs."""
    monkeypatch.setenv("LIVE2DIFF_CACHE", str(tmp_path))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("av\n")
    venv = environment.environment_dir(requirements)
    (venv / "half").mkdir(parents=True)
    calls = []
    monkeypatch.setattr(environment, "require_free_space", lambda *_: None)
    monkeypatch.setattr(environment, "make_venv", lambda folder: folder.mkdir())
    monkeypatch.setattr(environment, "run_pip", lambda *args, **_: calls.append(args))
    for _ in range(2):
        assert environment.ensure_environment(requirements) == environment.python_in(venv)
    assert len(calls) == 1
    assert not (venv / "half").exists()


def test_a_failed_install_leaves_no_stamp(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE2DIFF_CACHE", str(tmp_path))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("av\n")
    monkeypatch.setattr(environment, "require_free_space", lambda *_: None)
    monkeypatch.setattr(environment, "make_venv", lambda folder: folder.mkdir())

    def fail(*_, **__):
        raise ToolError("no registry")

    monkeypatch.setattr(environment, "run_pip", fail)
    with pytest.raises(ToolError, match="no registry"):
        environment.ensure_environment(requirements)
    assert not (environment.environment_dir(requirements) / environment.STAMP).exists()

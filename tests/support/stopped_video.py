"""A run of Stream Video that was stopped, inside ComfyUI's process, and what it left."""

import re

import pytest
import torch
from host_stream import patched
from stream_video import (
    Calls,
    StoppedError,
    block_clip,
    translate_video,
    translated,
)

FRAMES = 14


def partial(folders):
    (folder,) = (p for p in (folders / "out" / "live2diff_partial").iterdir() if p.is_dir())
    return folder


class Stopped:
    """A run with two saved states that was stopped, and what it would have become."""

    def __init__(self, folders, sd15, motion, codec):
        calls = Calls(sd15)
        self.model, self.codec = patched(sd15, motion, 4, 2), codec
        self.clip = block_clip(folders, range(FRAMES))
        self.whole = self.go_on()
        with calls.stopping_at(12), pytest.raises(StoppedError):
            translate_video(self.clip, self.model, codec=codec)
        self.folder, self.calls = partial(folders), calls

    def go_on(self):
        return translated(self.clip, self.model, codec=self.codec)

    def goes_on_at(self, caplog):
        """Go on, compare with the uninterrupted video, and return the frame it went on at."""
        caplog.clear()
        with caplog.at_level("INFO"):
            assert torch.equal(self.go_on(), self.whole)
        found = re.search(r"going on at frame (\d+)", caplog.text)
        return int(found[1]) if found else 0

    @property
    def states(self):
        return sorted(self.folder.glob("state_*.safetensors"))


def aside(folder):
    return sorted(path.name for path in folder.glob("*.aside"))


def snapshot(folder):
    return {
        path.name: path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.iterdir()
    }

"""Damaged files of a stopped video and of a saved stream: never wrong frames without a word.

The run goes on and equals the uninterrupted one, at an earlier frame or anew with a warning, or it
is refused with nothing touched.
"""

import os
import random
import re
import shutil

import folder_paths
import pytest
import torch
from host_stream import patched
from live_stream_inputs import load, pictures, reset, save, step
from stream_video import Calls, StoppedError, block_clip, translate_video, translated

pytestmark = pytest.mark.hostile

FRAMES = 14


@pytest.fixture(autouse=True)
def places(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "in"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))


class Stopped:
    """A video that was stopped, whose folder is put back before each damage.

    Attributes:
        folder: its partial folder.
        frames: those that had entered when it was stopped.
    """

    def __init__(self, place, sd15, motion, caplog, seed=3):
        calls = Calls(sd15)
        self._model, self._caplog, self._seed = patched(sd15, motion, 4, 2), caplog, seed
        self._clip = block_clip(place, range(FRAMES))
        self.whole = self._translated()
        with calls.stopping_at(12), pytest.raises(StoppedError):
            translate_video(self._clip, self._model, seed=seed)
        root = place / "out" / "live2diff_partial"
        (self.folder,) = (path for path in root.iterdir() if path.is_dir())
        self.kept = place / f"kept{seed}"
        shutil.move(self.folder, self.kept)
        self.frames = max(int(path.stem.removeprefix("state_")) for path in self.states())

    def states(self):
        return sorted(self.kept.glob("state_*.safetensors"))

    def segments(self):
        return sorted(self.kept.glob("segment_*.mp4"))

    def _translated(self):
        return translated(self._clip, self._model, codec="lossless", seed=self._seed)

    def goes_on_after(self, damage):
        """Damage the folder with the function `damage`, and go on.

        Returns:
            The frame at which it went on; None if it was refused.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.kept, self.folder)
        damage(self.folder)
        before = contents(self.folder)
        self._caplog.clear()
        with self._caplog.at_level("INFO"):
            try:
                found = self._translated()
            except (ValueError, OSError) as error:
                assert re.search(rf"{self.folder.name}|\.safetensors|\.mp4|\.mkv", str(error))
                assert contents(self.folder) == before, "refused, and nothing is touched"
                return None
        assert torch.equal(found, self.whole)
        went_on = re.search(r"going on at frame (\d+)", self._caplog.text)
        at = int(went_on[1]) if went_on else 0
        warned = any(record.levelname == "WARNING" for record in self._caplog.records)
        assert warned or at, "what is lost is said"
        return at


def contents(folder):
    return {
        path.name: path.read_bytes() if path.is_file() else path.lstat().st_mode
        for path in folder.iterdir()
    }


@pytest.fixture
def stopped(tmp_path, sd15, motion, caplog):
    return Stopped(tmp_path, sd15, motion, caplog)


def flip(path, generator):
    data = bytearray(path.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)


def test_a_flipped_bit_in_a_state_is_noticed(stopped):
    """Anywhere: in the header, in the settings, in a tensor."""
    generator, newest = random.Random(0), stopped.states()[-1].name
    places = [stopped.goes_on_after(lambda f: flip(f / newest, generator)) for _ in range(8)]
    # The state before it is as good as new.
    assert all(0 < at < stopped.frames for at in places)


def test_a_flipped_bit_in_a_segment_or_in_pictures_is_noticed(stopped):
    """Also where it decodes, to other pictures: lossless H.264 has no checksums."""
    generator = random.Random(3)
    for _ in range(2):
        for path in [*stopped.segments(), stopped.states()[-1].with_suffix(".mkv")]:
            assert stopped.goes_on_after(lambda f, n=path.name: flip(f / n, generator)) is not None


def test_flipped_bits_in_all_states(stopped):
    generator = random.Random(1)

    def damage(folder):
        for path in folder.glob("state_*.safetensors"):
            flip(path, generator)

    for _ in range(3):
        assert stopped.goes_on_after(damage) == 0


def test_files_are_cut_anywhere(stopped):
    generator = random.Random(2)

    def cut(folder):
        path = generator.choice(sorted(folder.glob("s*_*")))
        data = path.read_bytes()
        path.write_bytes(data[: generator.randrange(len(data))])

    for _ in range(8):
        assert stopped.goes_on_after(cut) is not None


def test_every_file_can_be_missing(stopped):
    for name in contents(stopped.kept):
        assert stopped.goes_on_after(lambda f, name=name: (f / name).unlink()) is not None


def test_files_change_places(stopped, tmp_path, sd15, motion, caplog):
    """Of the same video, and of one with another seed."""
    other = Stopped(tmp_path, sd15, motion, caplog, seed=4)
    states, segments = stopped.states(), stopped.segments()

    def take(source, name):
        return lambda folder: shutil.copy(source, folder / name)

    swaps = [
        *(take(theirs, ours.name) for theirs, ours in zip(other.states(), states, strict=False)),
        take(states[0], states[-1].name),
        take(states[-1], states[0].name),
        take(states[-1], "state_000000999.safetensors"),
        take(states[0], "state_000000001.safetensors"),
        take(states[0], "state_12_34.safetensors"),
        *(
            take(theirs, ours.name)
            for theirs, ours in zip(other.segments(), segments, strict=False)
        ),
        take(other.states()[-1].with_suffix(".mkv"), states[-1].with_suffix(".mkv").name),
        take(segments[0], segments[1].name),
        take(segments[1], segments[0].name),
        take(segments[-1], "segment_000000999.mp4"),
        take(segments[0], states[-1].with_suffix(".mkv").name),
        take(states[0], segments[0].name),
        take(segments[0], states[-1].name),
    ]
    for swap in swaps:
        assert stopped.goes_on_after(swap) is not None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
@pytest.mark.timeout(120)
def test_a_pipe_or_a_folder_in_place_of_any_file(stopped):
    """To open a pipe would wait for ever."""
    for make in (os.mkfifo, os.mkdir):
        for name in contents(stopped.kept):

            def replace(folder, name=name, make=make):
                (folder / name).unlink()
                make(folder / name)

            stopped.goes_on_after(replace)


# A saved stream


def test_a_flipped_bit_in_a_saved_stream_is_noticed(sd15, motion, vae, tmp_path, streams):
    (tmp_path / "in").mkdir()
    model, generator = patched(sd15, motion, 4, 2), random.Random(4)
    images = pictures(5)
    step(images[:4], model, vae)
    save()
    expected = step(images[4:], model, vae)[0]
    (path,) = (tmp_path / "out" / "live2diff").iterdir()
    whole = path.read_bytes()
    for _ in range(20):
        reset()
        path.write_bytes(whole)
        flip(path, generator)
        with pytest.raises(ValueError, match=f"{path.name}|not a saved stream|identity of the"):
            load()
    for cut_at in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut_at])
        with pytest.raises(ValueError, match=path.name):
            load()
    path.write_bytes(whole)
    load()
    assert torch.equal(step(images[4:], model, vae)[0], expected)


def test_a_state_of_a_video_is_no_saved_stream(stopped, tmp_path, streams):
    (tmp_path / "in").mkdir()
    folder = tmp_path / "out" / "live2diff"
    folder.mkdir()
    shutil.copy(stopped.states()[0], folder / "live.safetensors")
    with pytest.raises(ValueError, match="live.safetensors is the state of a video"):
        load()

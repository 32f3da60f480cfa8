"""No memory to try VAE or depth in float32: the frames are lost, and the stream goes on."""

import folder_paths
import pytest
import torch
from clips import make_clip
from host_stream import core, patched
from live_stream_inputs import TinyVAE
from lost_frames import HalfCoder, HalfDepth, HalfVAE, shades, still
from stream_video import translated

COUNT, BRIGHT = 12, (5, 6, 9)


@pytest.fixture(autouse=True)
def folders(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


@pytest.fixture
def no_room(monkeypatch):
    """Let the device have no memory for a copy of a VAE: the tries so far."""
    tries = []

    def short(*_):
        tries.append(1)
        raise torch.cuda.OutOfMemoryError("Allocation on device")

    monkeypatch.setattr(core("host.vae"), "float32_copy", short)
    return tries


class ShortDepth(HalfDepth):
    """Overflows where it is bright, and has no memory for float32."""

    tries = 0

    def infer(self, images, exact=False):
        if exact:
            self.tries += 1
            raise torch.cuda.OutOfMemoryError("Allocation on device")
        return super().infer(images)


def clip(folder):
    shown = shades(COUNT, BRIGHT).mul(255).round().to(torch.uint8).numpy()
    return make_clip(folder, "prores", ticks=range(COUNT), images=list(shown))


class Peaks(HalfCoder):
    """Overflows at the brightest pictures that come out: those above `limit`."""

    def __init__(self):
        super().__init__(decodes=True)
        self.means, self.limit = [], float("inf")

    def bright(self, values):
        self.means.append(float(values.float().mean()))
        return self.means[-1] > self.limit


def check(found, whole, lost, caplog):
    """Only these frames are lost, and that is said once."""
    assert still(found) == lost
    kept = [n for n in range(COUNT) if n not in lost]
    assert torch.equal(found[kept], whole[kept])
    assert caplog.text.count("no memory is left to compute in float32") == 1


def test_an_encoder_without_memory_for_float32(sd15, folders, caplog, no_room):
    file = clip(folders)
    found = translated(file, sd15, HalfVAE(HalfCoder(encodes=True)))
    assert no_room == [1], "once is enough"
    check(found, translated(file, sd15, HalfVAE(HalfCoder())), list(BRIGHT), caplog)


def test_a_decoder_without_memory_for_float32(sd15, folders, caplog, no_room):
    file, coder = clip(folders), Peaks()
    whole = translated(file, sd15, HalfVAE(coder))
    # The first frame has none before it.
    third = sorted(coder.means[1:])[-3]
    lost = [n for n, mean in enumerate(coder.means) if n and mean >= third]
    coder.limit = third - 1e-6
    found = translated(file, sd15, HalfVAE(coder))
    assert no_room == [1] and len(lost) == 3
    check(found, whole, lost, caplog)


def test_depth_without_memory_for_float32(sd15, motion, folders, caplog):
    file, model, depth = clip(folders), patched(sd15, motion, 4, 2), ShortDepth()
    found = translated(file, model, TinyVAE(), depth_model=depth)
    assert depth.tries == 1 and still(found) == list(BRIGHT)
    assert caplog.text.count("no memory is left to compute in float32") == 1


def test_a_video_that_is_nothing_else_ends_with_the_reason(sd15, folders, no_room):
    """And not as one that ran out of memory."""

    class Never(HalfCoder):
        def _through(self, values):
            return values * float("nan")

    error = core("run.finite").NotFiniteError
    with pytest.raises(error, match="8 frames in a row.*the VAE's decoder"):
        translated(clip(folders), sd15, HalfVAE(Never(decodes=True)))

"""A video run: every frame once, with its time; stopped and resumed as if nothing had happened."""

from dataclasses import dataclass
from fractions import Fraction

import numpy
import pytest
import torch
import toy_stream as toy

from live2diff_core.live2diff.window import AttentionWindow
from live2diff_core.run.stages import VideoTranslation
from live2diff_core.run.translator import FrameTranslator
from live2diff_core.stream.similar_frames import SimilarFrameFilter

HEIGHT, WIDTH = toy.SIZE
CONFIG = AttentionWindow(6, 3)


@dataclass
class Frame:
    index: int
    time: Fraction
    duration: Fraction
    image: numpy.ndarray


class Coder:
    """Pictures of latent size: three channels and a constant fourth."""

    def encode(self, images):
        latents = images.movedim(-1, 1)
        return torch.cat([latents, torch.zeros_like(latents[:, :1])], dim=1)

    def decode(self, latents):
        return latents[:, :3].movedim(1, -1).sigmoid()


class Sink:
    """Keeps segments in memory; fails when told to."""

    def __init__(self, segments=(), fail_at=None):
        self.segments, self.open, self.fail_at = list(segments), [], fail_at

    def write(self, image, time, duration):
        if self.fail_at == sum(map(len, self.segments)) + len(self.open):
            raise OSError(28, "No space left on device")
        self.open.append((image.copy(), time, duration))

    def commit(self):
        if self.open:
            self.segments.append(self.open)
        self.open = []

    @property
    def frames(self):
        return [frame for segment in self.segments for frame in segment]


def clip(count, start=0):
    """Frames of a video with a varying frame rate, from `start` on."""
    generator = numpy.random.default_rng(3)
    images = generator.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=numpy.uint8)
    times = numpy.cumsum(generator.integers(1, 5, count + 1))
    for index in range(start, count):
        time, after = (Fraction(int(t), 24) for t in times[index : index + 2])
        yield Frame(index, time, after - time, images[index])


def translation(frames, sink, model=None, **options):
    model = model or toy.ToyModel()
    session = toy.session(model, 2, CONFIG).session
    translator = FrameTranslator(session, SimilarFrameFilter(0), eight_bit=True)
    opened = toy.OpenToy(model, Coder())
    return VideoTranslation(frames, lambda image: image, translator, opened, sink, **options)


def whole(count):
    sink = Sink()
    assert translation(clip(count), sink).run() == count
    return sink.frames


def same(found, expected):
    assert len(found) == len(expected)
    for (image, *shown), (other, *other_shown) in zip(found, expected, strict=True):
        assert shown == other_shown and (image == other).all()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 20])
def test_every_frame_comes_out_with_its_time(count):
    found = whole(count)
    assert [(t, d) for _, t, d in found] == [(f.time, f.duration) for f in clip(count)]


@pytest.mark.parametrize("stop_call", [3, 7, 12, 16])
@pytest.mark.parametrize("every", [1, 4, 5])
def test_resumed_is_uninterrupted(stop_call, every):
    count, saved = 17, []
    model, sink = toy.ToyModel(), Sink()
    model.fail_at = stop_call

    def save(state):
        saved.append(({k: v.clone() for k, v in state.items()}, len(sink.segments)))

    with pytest.raises(InterruptedError):
        translation(clip(count), sink, model, checkpoint_every=every, save=save).run()
    assert not sink.open  # what was done is closed and playable
    if not saved:
        return
    state, segments = saved[-1]
    again = Sink(sink.segments[:segments])
    resumed = translation(iter(()), again)
    resumed.load_state_dict(state)
    resumed.frames = clip(count, start=resumed.translator.session.frames_in)
    assert resumed.run() == count
    same(again.frames, whole(count))


def test_checkpoints_change_nothing():
    sink = Sink()
    translation(clip(17), sink, checkpoint_every=3).run()
    same(sink.frames, whole(17))
    assert len(sink.segments) > 3


def test_a_full_disk_stops_the_run_with_its_own_error():
    sink = Sink(fail_at=5)
    with pytest.raises(OSError, match="No space left"):
        translation(clip(60), sink).run()
    assert len(sink.frames) == 5


def test_a_broken_input_keeps_what_came_before():
    def broken():
        yield from clip(10)
        raise ValueError("the rest is damaged")

    sink = Sink()
    with pytest.raises(ValueError, match="damaged"):
        translation(broken(), sink).run()
    assert len(sink.frames) == 9  # one is still inside at two denoising steps


def test_progress_counts_finished_frames():
    seen = []
    run = translation(clip(9), Sink(), on_frame=lambda done, picture: seen.append(done))
    run.run()
    assert seen == list(range(1, 10))
    assert run.times.frames == 9 and "9 frames" in run.times.table()
    stages = ["decode", "vae encode", "model", "vae decode", "read back", "encode"]
    assert list(run.times.stages) == stages
    assert [line.rsplit(maxsplit=4)[0].strip() for line in run.times.table().splitlines()[1:]] == [
        *stages,
        "total",
    ]

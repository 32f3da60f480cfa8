"""A video run: every frame once, with its time; stopped and resumed as if nothing had happened."""

import threading
from dataclasses import dataclass
from fractions import Fraction

import numpy
import pytest
import torch
import toy_stream as toy

from live2diff_core.live2diff.window import AttentionWindow
from live2diff_core.run import translator as translator_module
from live2diff_core.run.live import LiveStream
from live2diff_core.run.notices import Notices
from live2diff_core.run.saving import StateSaver
from live2diff_core.run.stages import VideoTranslation
from live2diff_core.run.translator import FrameTranslator
from live2diff_core.stream.similar_frames import SimilarFrameFilter
from live2diff_core.stream.transfer import HostCopy

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

    def __init__(self, segments=(), fail_at=None, unfinished=()):
        self.segments, self.open, self.fail_at = list(segments), list(unfinished), fail_at

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
        return [frame for segment in [*self.segments, self.open] for frame in segment]


class Kept(StateSaver):
    """Keeps the states that a run saves by itself, with the segments that there were."""

    def __init__(self, sink, seconds=0.0):
        self.states = []
        super().__init__(self._keep, seconds, Notices())
        self._sink = sink

    def _keep(self, frames, state):
        self.states.append((frames, state, len(self._sink.segments)))

    def later(self, frames, state, after):
        super().later(frames, state, after)
        self._saving.result()


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


def go_on(state, sink, count):
    resumed = translation(iter(()), sink)
    resumed.load_state_dict(state)
    resumed.frames = clip(count, start=resumed.translator.session.frames_in)
    assert resumed.run() == count
    same(sink.frames, whole(count))


@pytest.mark.parametrize("stop_call", [3, 7, 12, 16])
@pytest.mark.parametrize("every", [1, 4, 5])
def test_resumed_is_uninterrupted(stop_call, every):
    """From the state that was saved by itself, and from where the run was stopped."""
    count = 17
    model, sink = toy.ToyModel(), Sink()
    model.fail_at = stop_call
    saver = Kept(sink)
    run = translation(clip(count), sink, model, checkpoint_every=every, saver=saver)
    with pytest.raises(InterruptedError):
        run.run()
    finished = run.frames_finished
    assert len(sink.frames) == finished  # what was done is written
    if saver.states:
        frames, state, segments = saver.states[-1]
        assert frames % every == 0
        go_on(state, Sink(sink.segments[:segments]), count)
    stopped = {name: tensor.clone() for name, tensor in run.state_dict().items()}
    go_on(stopped, Sink(sink.segments, unfinished=sink.open), count)


@pytest.mark.parametrize("fail_at", [0, 3, 5, 8])
def test_pictures_that_could_not_be_written_are_in_the_state(fail_at):
    count, sink = 17, Sink(fail_at=fail_at)
    run = translation(clip(count), sink, checkpoint_every=4)
    with pytest.raises(OSError, match="No space left"):
        run.run()
    assert len(sink.frames) == fail_at and run.frames_unwritten
    state = {name: tensor.clone() for name, tensor in run.state_dict().items()}
    go_on(state, Sink(sink.segments, unfinished=sink.open), count)


def test_a_failed_report_loses_no_frame():
    """Interrupts come from there, too."""
    count, sink = 17, Sink()

    def interrupt(done, picture):
        if done == 7:
            raise InterruptedError

    run = translation(clip(count), sink, on_frame=interrupt)
    with pytest.raises(InterruptedError):
        run.run()
    go_on(run.state_dict(), Sink(sink.segments, unfinished=sink.open), count)


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


# Pictures on their way


@pytest.fixture
def order(monkeypatch):
    """What happens to the pictures of a stream without a memory: ("queued" or "waited", frame)."""
    log, counter = [], iter(range(10_000))

    class Watched(HostCopy):
        def __init__(self, *args):
            super().__init__(*args)
            self.frame, self.seen = next(counter), False
            log.append(("queued", self.frame))

        def _arrived(self):
            if not self.seen:
                self.seen = True
                log.append(("waited", self.frame))
            return super()._arrived()

    monkeypatch.setattr(translator_module, "HostCopy", Watched)
    return log


def single_frames(steps=1, eight_bit=False):
    """A translator without a memory, in which a frame comes out with each that goes in."""
    model = toy.ToyModel()
    session = toy.session(model, steps, None).session
    made = FrameTranslator(session, SimilarFrameFilter(0), eight_bit)
    return made, toy.OpenToy(model, Coder())


def images(count):
    return torch.stack([torch.from_numpy(frame.image) for frame in clip(count)])


def test_the_stream_itself_never_waits_for_a_picture(order):
    made, opened = single_frames()
    for image in images(5):
        made.push(opened, image)
    list(made.drain(opened))
    assert order == [("queued", frame) for frame in range(5)]


def test_a_video_is_read_back_in_the_encoders_thread_alone(order):
    """That thread is held up until a frame has been queued that came two later."""
    released, threads = threading.Event(), set()
    sink, run = Sink(), None
    write = sink.write

    def held_up(*frame):
        threads.add(threading.current_thread().name.removesuffix("_0"))
        assert released.wait(20)
        write(*frame)

    def report(done, picture):
        if done == 2:
            released.set()

    sink.write = held_up
    made, opened = single_frames(eight_bit=True)
    run = VideoTranslation(clip(9), lambda i: i, made, opened, sink, on_frame=report)
    assert run.run() == 9 and len(sink.frames) == 9
    assert threads == {"live2diff-encode"}
    # A frame is reported when the next one is queued.
    assert {("queued", frame) for frame in range(3)} <= set(order[: order.index(("waited", 1))])
    assert [frame for what, frame in order if what == "waited"] == list(range(9))


def test_a_frame_is_reported_after_the_next_one_is_queued(order):
    reported = []
    made, opened = single_frames(eight_bit=True)
    run = VideoTranslation(
        clip(5),
        lambda image: image,
        made,
        opened,
        Sink(),
        on_frame=lambda done, picture: reported.append(
            (done, sum(what == "queued" for what, _ in order))
        ),
    )
    run.run()
    assert reported == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 5)]


def test_a_live_run_queues_all_its_frames_before_it_waits(order):
    made, opened = single_frames(steps=2)
    live = LiveStream("live", {}, "", made)
    output = live.push(opened, images(6) / 255.0, hold=False, finish=True)
    assert output.pictures.shape[0] == 6 and output.pictures.dtype == torch.float32
    assert [what for what, _ in order] == ["queued"] * 6 + ["waited"] * 6


def test_a_long_live_run_has_a_limited_number_of_frames_on_their_way(order):
    made, opened = single_frames()
    live = LiveStream("live", {}, "", made)
    pictures = live.push(opened, images(60) / 255.0, hold=False).pictures
    assert pictures.shape[0] == 60
    for index, (what, _) in enumerate(order):
        before = [what for what, _ in order[: index + 1]]
        assert before.count("queued") - before.count("waited") <= 17
    assert order[16] == ("queued", 16) and order[17] == ("waited", 0)


def test_bytes_go_up_as_bytes_and_are_floats_behind(monkeypatch):
    """The VAE and the depth see the same floats as if they were made on the CPU."""
    uploaded, encoded, judged = [], [], []

    def note(tensor, device):
        uploaded.append((tensor.dtype, device))
        return tensor

    class Seen(Coder):
        def encode(self, pictures):
            encoded.append(pictures.clone())
            return super().encode(pictures)

    class Depth:
        def infer(self, pictures):
            judged.append(pictures.clone())
            return pictures.mean(3)

    monkeypatch.setattr(translator_module, "upload", note)
    made, opened = single_frames()
    opened = toy.OpenToy(opened.model, Seen(), Depth())
    picture = images(1)[0]
    made.push(opened, picture)
    made.push(opened, picture.float() / 255)
    assert uploaded == [
        (torch.uint8, opened.picture_device),
        (torch.float32, opened.picture_device),
    ]
    for seen in (encoded[::2], judged):
        assert all(torch.equal(p[0], picture.float() / 255) for p in seen) and len(seen) == 2


@pytest.mark.parametrize("eight_bit", [True, False])
def test_pictures_have_the_type_of_their_sink(eight_bit):
    """uint8 is rounded to the nearest of what a float stream gives."""
    floats, opened = single_frames()
    made, _ = single_frames(eight_bit=eight_bit)
    for image in images(4):
        (expected,), (found,) = (each.push(opened, image) for each in (floats, made))
        wanted = expected.get()
        if eight_bit:
            wanted = (wanted * 255).round().to(torch.uint8)
        assert found.get().dtype == wanted.dtype and torch.equal(found.get(), wanted)


@pytest.mark.parametrize("eight_bit", [True, False])
def test_saved_float_pictures_come_out_in_the_type_of_the_sink(eight_bit):
    """Version 0.1.0 saved float32 for videos, too, when a run had failed to hand pictures over."""
    made, opened = single_frames(eight_bit=eight_bit)
    (first,) = made.push(opened, images(1)[0])
    state = made.state_dict()
    saved = torch.rand(*toy.SIZE, 3, generator=torch.Generator().manual_seed(0))
    state["pictures/0"] = saved
    again, _ = single_frames(eight_bit=eight_bit)
    again.load_state_dict(state)
    wanted = (saved * 255).round().to(torch.uint8) if eight_bit else saved
    assert torch.equal(again.state_dict()["pictures/0"], wanted)
    (found,) = again.drain(opened)
    assert found.get().dtype == wanted.dtype and torch.equal(found.get(), wanted)


class Overflowing(Coder):
    """Decodes to NaN or infinity from the third picture on."""

    value, decoded = float("nan"), 0

    def decode(self, latents):
        self.decoded += 1
        pictures = super().decode(latents)
        return pictures if self.decoded < 3 else torch.full_like(pictures, self.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_run_warns_once_of_pictures_that_are_not_finite(caplog, value):
    made, opened = single_frames(eight_bit=True)
    opened.coder = Overflowing()
    opened.coder.value = value
    sink = Sink()
    VideoTranslation(clip(6), lambda image: image, made, opened, sink).run()
    assert len(sink.frames) == 6
    (warning,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert "frame 2 came out as NaN or infinite" in warning and "--fp32-vae" in warning


def test_a_live_stream_counts_such_pictures_over_its_runs_and_logs_the_first(caplog):
    made, opened = single_frames()
    opened.coder = Overflowing()
    live = LiveStream("live", {}, "", made)
    for image in images(4) / 255.0:
        live.push(opened, image[None], hold=False)
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert ["frame 2" in text for text in warnings] == [True]
    assert live.notices.text.startswith("Warning: 2 frames came out as NaN or infinite (first: fr")

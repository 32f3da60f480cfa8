"""A live stream inside the test's process: frames, changes and commands at given frames."""

import contextlib
from dataclasses import dataclass, field

import torch
from host_stream import core, prompt
from live_stream_inputs import HEIGHT, WIDTH

SAMPLING = {"seed": 3, "steps": 4, "denoise": 0.5, "cfg": 1.0}


def live_inputs(model, vae, **changes):
    """The inputs of the stream's specification."""
    prompts = {"positive": prompt(), "negative": prompt(1)}
    return {"model": model, "vae": vae, **prompts, **SAMPLING, **changes}


def encode(text):
    """A text encoder: the text is the seed of a random prompt."""
    return prompt(int(text))


@dataclass
class Follower:
    """A listener that keeps everything."""

    results: list = field(default_factory=list)
    told: list = field(default_factory=list)

    def show(self, result):
        self.results.append(result)

    def tell(self, message):
        self.told.append(dict(message))

    @property
    def finished(self):
        return [result for result in self.results if not result.warming_up]

    def applied(self, control):
        return [message for message in self.told if message.get("applied") == control]


class Script:
    """The `watch` of a run: before each frame, what is to happen there, then the frame."""

    def __init__(self, channel, pixels, before, end="finish"):
        self.channel, self.pixels, self.before, self.end = channel, pixels, dict(before), end
        self.next, self.follower, self.arrived = 0, Follower(), 0.0
        self.count = core("live.frames").FrameCount()
        channel.join(self.follower)

    def __call__(self):
        if self.channel.state == "paused":
            self.offer()
            self.command("resume")
        if self.channel.state != "running" or self.channel.slot._item is not None:
            return False
        for control, value in self.before.pop(self.next, ()):
            self.ask(control, value)
        if self.next == len(self.pixels):
            self.command(self.end)
        else:
            self.offer()
        return False

    def ask(self, control, value=None):
        controls = core("live.controls")
        if control == "call":
            value(self)
        elif control in core("live.channel").COMMANDS:
            self.command(control)
        else:
            change = controls.Change(control, controls.checked(control, value), self.next)
            self.channel.change(change)

    def command(self, name):
        self.channel.command(core("live.channel").Command(name, name, self.follower))

    def offer(self):
        self.arrived += 0.04
        self.count.came()
        frame = core("live.frames").LiveFrame(
            self.pixels[self.next], self.count, self.next + 1, 0.0, self.arrived
        )
        self.channel.offer(frame)
        self.next += 1


@torch.inference_mode()
def run_live(
    streams, inputs, pixels, before=(), end="finish", folder=None, texts=True, name="live"
):
    """Run a stream over uint8 [F, H, W, 3]; return its script, whose follower has everything."""
    live = {
        m: core(f"live.{m}")
        for m in ("channels", "loop", "loop_parts", "settings", "sizing", "recording")
    }
    channel = live["channels"].CHANNELS.get(name, keep=True)
    settings = live["settings"].LiveSettings(inputs)
    script = Script(channel, pixels, before, end)
    size = (pixels.shape[2], pixels.shape[1])
    closed = {} if texts else {"prompt": "Connect CLIP.", "negative": "Connect CLIP."}
    channel.begin(settings, live["sizing"].LiveSize("fill", *size), "a test", closed)

    def record(stream, now):
        return live["recording"].Recording(folder, stream, now, size, channel.warn)

    parts = live["loop_parts"].LoopParts(live["loop_parts"].PageSource(), encode, script, record)
    loop = live["loop"].LiveLoop(channel, settings, parts)
    with contextlib.ExitStack() as stack:
        stack.callback(channel.leave, script.follower)
        stack.callback(channel.end)
        loop.run(streams)
    return script


def live_pixels(count, seed=0, size=(HEIGHT, WIDTH)):
    """uint8 [F, H, W, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *size, 3), generator=generator, dtype=torch.uint8).numpy()

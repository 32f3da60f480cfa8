"""Live Stream: runs until it is stopped, from the live page or an address to whoever watches."""

from __future__ import annotations

import time
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io

from ..live2diff_core.live.address_source import AddressSource, check_source
from ..live2diff_core.live.channel import LiveChannel
from ..live2diff_core.live.channels import CHANNELS
from ..live2diff_core.live.loop import LiveLoop
from ..live2diff_core.live.loop_parts import LoopParts, PageSource
from ..live2diff_core.live.outputs import LiveOutputs, check_outputs
from ..live2diff_core.live.recording import Recording
from ..live2diff_core.live.settings import LiveSettings
from ..live2diff_core.live.sizing import LiveSize
from ..live2diff_core.run.live import LiveStream
from ..live2diff_core.run.registry import STREAMS
from .live_files import checked_name
from .live_queue import requeue
from .live_streams import always, stream_name
from .live_watch import LiveWatch
from .prompts import encoder
from .recordings import recordings_folder
from .stream_inputs import (
    model_input,
    option_inputs,
    prompt_inputs,
    sampling_inputs,
    sigmas_input,
)
from .types import CATEGORY, DepthModelType
from .video import size_inputs

PAGE, ADDRESS = "live page", "address"
KEEP_RUNNING, LET_GO_FIRST = "keep running", "let them go first"
_NO_CLIP = "Connect CLIP to the node 'Live Stream', and queue the graph again."


class Live2DiffLiveStream(io.ComfyNode):
    """Translates frames as they come, until it is stopped."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffLiveStream",
            display_name="Live Stream",
            category=CATEGORY,
            description="Translates a camera, a screen or a network stream as it comes, until it "
            "is stopped: by the live page, by ComfyUI's interrupt, or by the end of its source. "
            "Late frames are dropped and counted, never queued.",
            search_aliases=["live", "webcam", "camera", "realtime", "obs", "rtsp", "rtmp"],
            inputs=[*_stream_inputs(), *_live_inputs(), *size_inputs(), *_registry_inputs()],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="The last picture; black when there was none."
                ),
                io.Int.Output(display_name="frames", tooltip="Frames that this run finished."),
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Make the node run every time."""
        return always()

    @classmethod
    def execute(
        cls,
        stream: str,
        source: str,
        address: str,
        outputs: str,
        when_others_wait: str,
        size: str,
        width: int,
        height: int,
        max_idle_minutes: int,
        max_total_gb: float,
        clip=None,
        **inputs: Any,
    ) -> io.NodeOutput:
        """Run the stream until it ends.

        Raises:
            ValueError: an address or the inputs cannot be used.
        """
        name, written = stream_name(stream), check_outputs(outputs)
        if source == ADDRESS:
            check_source(address)
        settings, sizing = LiveSettings(inputs), LiveSize(size, width, height)
        settings.spec  # noqa: B018 (refuses what no stream can have, before anything starts)
        channel = CHANNELS.get(name, keep=True)
        channel.start_again = requeue()
        closed = {} if clip is not None else {"prompt": _NO_CLIP, "negative": _NO_CLIP}
        channel.begin(settings, sizing, PAGE if source == PAGE else "address", closed)
        watch = LiveWatch(channel, cls.hidden.unique_id, when_others_wait == LET_GO_FIRST)
        parts = LoopParts(
            AddressSource(address, channel) if source == ADDRESS else PageSource(),
            encode=None if clip is None else encoder(clip),
            watch=watch,
            record=lambda live, now: record(channel, live, now),
            max_idle_seconds=max_idle_minutes * 60.0,
            max_bytes=int(max_total_gb * 1e9),
        )
        loop = LiveLoop(channel, settings, parts)
        run_loop(loop, channel, watch, LiveOutputs(written, channel))
        return io.NodeOutput(last_picture(loop), channel.figures.finished)


def run_loop(loop: LiveLoop, channel: LiveChannel, watch: LiveWatch, outputs: LiveOutputs) -> None:
    """Run to the end, and say at the end how it ended."""
    error = ""
    try:
        with outputs:
            loop.run(STREAMS)
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as failure:
        error = str(failure)
        raise
    finally:
        if watch.made_way and channel.start_again is not None:
            channel.start_again()
        channel.end(error, again=watch.made_way)
        watch.show()


def record(channel: LiveChannel, live: LiveStream, settings: LiveSettings) -> Recording:
    """Start a recording in output/live2diff/recordings."""
    stem = checked_name(recording_name(channel.name)).removesuffix(".safetensors")
    root = recordings_folder()
    stamp, number = time.strftime("%Y%m%d-%H%M%S"), 1
    while (folder := root / f"{stem}-{stamp}-{number}").exists():
        number += 1
    size = channel.size.size
    assert size is not None
    return Recording(folder, live, settings, size, channel.warn)


def recording_name(stream: str) -> str:
    """Return a stream's name with what no file name may have replaced."""
    kept = "".join(c if c.isalnum() or c in " .-_" else "_" for c in stream).strip(" ._-")
    return kept[:60] or "live"


def last_picture(loop: LiveLoop) -> torch.Tensor:
    """Return the last picture [1, H, W, 3]; a small black one where there is none."""
    if loop.last is None:
        return torch.zeros(1, 64, 64, 3)
    return torch.from_numpy(loop.last).float().div(255.0).unsqueeze(0)


def _stream_inputs() -> list:
    return [
        model_input(),
        io.Vae.Input("vae", tooltip="SD1.5 VAE, or TAESD, which is much faster."),
        *prompt_inputs(),
        io.String.Input(
            "stream",
            default="live",
            tooltip="Name of the stream, as in 'Stream Step': it is the same stream.",
        ),
        *sampling_inputs(fixed_seed=True),
        DepthModelType.Input(
            "depth_model",
            optional=True,
            tooltip="From 'Load Depth Model': keeps the structure of the scene. Needs a motion "
            "module with a depth encoder.",
        ),
        sigmas_input(),
        *option_inputs(),
        io.Clip.Input(
            "clip", optional=True, tooltip="Lets the live page change the prompts of the stream."
        ),
    ]


def _live_inputs() -> list:
    return [
        io.Combo.Input(
            "source",
            options=[PAGE, ADDRESS],
            tooltip="live page: camera, screen, file or picture, chosen there. address: what "
            "'address' says.",
        ),
        io.String.Input(
            "address",
            default="",
            tooltip="A stream (rtsp, rtmp, http, https, udp) or a camera of this computer "
            "(camera:/dev/video0, on Windows camera:its name).",
        ),
        io.String.Input(
            "outputs",
            default="",
            multiline=True,
            tooltip="Beside the live page and its .mjpg address, one a line: an address to write "
            "H.264 to (rtmp, rtsp, udp), 'recording', 'virtual camera' or 'ndi'.",
        ),
        io.Combo.Input(
            "when_others_wait",
            options=[KEEP_RUNNING, LET_GO_FIRST],
            tooltip="When another prompt waits in ComfyUI's queue: go on, or stop, let it go "
            "first, and go on after it from where the stream was.",
        ),
    ]


def _registry_inputs() -> list:
    return [
        io.Int.Input(
            "max_idle_minutes",
            default=30,
            min=0,
            max=10_080,
            tooltip="The stream is dropped when it has not run for so long; 0 keeps it.",
        ),
        io.Float.Input(
            "max_total_gb",
            default=8.0,
            min=0.0,
            max=1024.0,
            step=0.1,
            tooltip="When all live streams together hold more, others are dropped, the least "
            "recently used first; 0 is no limit.",
        ),
    ]

"""Stream Video: a video of any length in, the translated video out, frame by frame."""

from typing import Any

from comfy_api.latest import InputImpl, io

from ..live2diff_core.host.identity import graph_identity
from ..live2diff_core.live.loaded_recording import LoadedRecording
from ..live2diff_core.live.replay import RecordedSpec
from ..live2diff_core.run.file import VideoRun
from ..live2diff_core.run.picture_stream import StepReport
from ..live2diff_core.run.spec import StreamSpec
from ..live2diff_core.video.container import name_of
from ..live2diff_core.video.encoder import Encoding
from ..live2diff_core.video.frame_size import plan_frame_size
from ..live2diff_core.video.reader import open_video
from .kept_results import RESULTS, output_folder
from .picture_video import stream_source
from .progress import RunProgress
from .stream_inputs import (
    model_input,
    option_inputs,
    prompt_inputs,
    sampling_inputs,
    sigmas_input,
)
from .types import CATEGORY, DepthModelType, RecordingType

SAVE_MINUTES = 5.0
# Inputs whose sources do not name the result: the video is named by itself.
NOT_IN_RESULT = ("video", "save_minutes")


class Live2DiffStreamVideo(io.ComfyNode):
    """Decodes, translates and encodes a video frame by frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffStreamVideo",
            display_name="Stream Video",
            category=CATEGORY,
            description="Translates a whole video in constant memory: decodes, translates and "
            "encodes frame by frame, keeps times and sound, and goes on after an interrupt or a "
            "crash when it is queued again with the same inputs.",
            inputs=[*_stream_inputs(), *size_inputs(), *output_inputs(), _recording_input()],
            outputs=[
                io.Video.Output(
                    display_name="video", tooltip="The translated video, for Save Video."
                )
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def execute(
        cls,
        video,
        size: str,
        width: int,
        height: int,
        codec: str,
        crf: int,
        checkpoint_every: int,
        save_minutes: float = SAVE_MINUTES,
        recording: LoadedRecording | None = None,
        **stream: Any,
    ) -> io.NodeOutput:
        """Open the video and translate it."""
        spec = StreamSpec.from_inputs(**stream)
        source, picture_rate = stream_source(video)
        trim = trim_window(video)
        with open_video(source, *trim, frame_rate=picture_rate) as reader:
            info = reader.info
            name = name_of(source)
            plan = plan_frame_size(info.width, info.height, size, width, height, name)
            run = VideoRun(
                spec if recording is None else RecordedSpec(stream, recording, plan.size),
                reader,
                source,
                trim,
                size=plan,
                encoding=Encoding(codec, crf),
                checkpoint_every=checkpoint_every,
                made_from=graph_identity(cls.hidden.prompt, cls.hidden.unique_id, NOT_IN_RESULT),
                save_seconds=save_minutes * 60,
            )
            RESULTS.sweep()
            return io.NodeOutput(run_video(run, cls.hidden.unique_id))


def run_video(
    run: VideoRun, node_id: str | None, report: StepReport | None = None
) -> InputImpl.VideoFromFile:
    """Run with progress on the node; return the VIDEO, whose file is kept until it is saved.

    Args:
        run: the run.
        node_id: the node.
        report: is told of steps within a frame, where those take long.
    """
    frames = run.reader.info.frame_count
    with RunProgress(node_id, frames, run.notices) as progress:
        if report is not None:
            report.listener = progress.working
        result = run.run(output_folder(), progress)
        progress.keeps(result)
    video = InputImpl.VideoFromFile(str(result))
    RESULTS.keep(result, video)
    RESULTS.limit()
    return video


def _stream_inputs() -> list:
    return [
        model_input(),
        io.Vae.Input("vae", tooltip="SD1.5 VAE, or TAESD, which is much faster."),
        *prompt_inputs(),
        io.Video.Input("video", tooltip="From Load Video or Video From Folder. Any length."),
        DepthModelType.Input(
            "depth_model",
            optional=True,
            tooltip="From 'Load Depth Model'. Keeps the structure of the scene; needs a motion "
            "module with a depth encoder. The running range is used.",
        ),
        *sampling_inputs(),
        sigmas_input(),
        *option_inputs(),
    ]


def _recording_input() -> RecordingType.Input:
    return RecordingType.Input(
        "recording",
        optional=True,
        tooltip="From 'Load Recording', with its video: everything that was changed live changes "
        "again at the same frames. With size 'keep' it is what was seen.",
    )


def size_inputs() -> list:
    """Make the inputs for the size of the frames."""
    return [
        io.Combo.Input(
            "size",
            options=["fill", "fit", "keep"],
            default="fill",
            tooltip="fill: scale and crop to exactly width x height. fit: scale into it and keep "
            "the whole picture. keep: the video's own size, cropped to multiples of 8.",
        ),
        io.Int.Input("width", default=512, min=64, max=4096, step=8, tooltip="Not used by 'keep'."),
        io.Int.Input(
            "height", default=512, min=64, max=4096, step=8, tooltip="Not used by 'keep'."
        ),
    ]


def output_inputs(checkpoint_every: int = 240, save_minutes: float = SAVE_MINUTES) -> list:
    """Make the inputs for encoding and saving, which all nodes share that write videos.

    Args:
        checkpoint_every, save_minutes: their defaults.
    """
    return [
        io.Combo.Input(
            "codec",
            options=["h264", "lossless"],
            default="h264",
            tooltip="h264 plays everywhere. lossless keeps every pixel; browsers do not play it.",
        ),
        io.Int.Input(
            "crf", default=18, min=1, max=51, tooltip="Quality of h264: lower is better, larger."
        ),
        io.Int.Input(
            "checkpoint_every",
            default=checkpoint_every,
            min=0,
            max=100_000,
            tooltip="The video is finished in parts of so many frames, behind which the state can "
            "be saved; a run that was stopped goes on from a saved state. 0 saves none.",
        ),
        io.Float.Input(
            "save_minutes",
            default=save_minutes,
            min=0.0,
            max=1440.0,
            step=0.5,
            optional=True,
            tooltip="Minutes between two saved states, which a crash can cost at most; each one "
            "writes the stream's memory to disk, in the background. A run that is stopped saves at "
            "once. 0 saves after every part.",
        ),
    ]


def trim_window(video) -> tuple[float, float]:
    """Return start and duration in seconds that a VIDEO is trimmed to; (0, 0) is all of it."""
    if hasattr(video, "get_active_trim_window"):
        return video.get_active_trim_window()
    # Hosts before 0.24 store the trim only in private attributes.
    private = vars(video)
    prefix = "_VideoFromFile__"
    return (
        max(float(private.get(f"{prefix}start_time", 0.0)), 0.0),
        float(private.get(f"{prefix}duration", 0.0)),
    )

"""Translate one video on one server: a plain function, also for callers with many of both."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import av

from .answers import Progress
from .client import ComfyClient
from .errors import ConnectionLostError, PromptError
from .ledger import content_hash
from .transfer import SUBFOLDER, download, on_server
from .workflow import Workflow

PATIENCE_SECONDS = 300.0
# A video that loses the server this many times is taken for the cause.
MOST_LOSSES = 5


@dataclass(frozen=True)
class VideoResult:
    """A translated video: its file, its frames, and the seconds it took, waits included."""

    path: Path
    frames: int
    seconds: float


def translate_video(
    client: ComfyClient,
    workflow: Workflow,
    video: Path,
    out: Path,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    content: str | None = None,
    input_dir: Path | None = None,
    patience: float = PATIENCE_SECONDS,
) -> VideoResult:
    """Translate one video and wait for the result.

    When the connection is lost, it waits for the server and resumes the prompt or, after a
    restart, queues it again. When it is interrupted itself, it cancels the prompt on the server.

    Args:
        client: the server.
        workflow: the workflow to run the video through.
        video: the local file.
        out: path of the result without its ending, which depends on the saved file.
        on_progress: called with the progress of each node.
        content: hash of the video's content, if it is known.
        input_dir: the server's input folder, if this machine can write to it; None: upload.
        patience: seconds to wait for a lost server.

    Raises:
        UploadRefusedError: the server refuses the video.
        PromptRefusedError: the server refuses the workflow.
        ServerGoneError: the server did not come back.
        PromptError: the translation failed; the text names the node and the reason.
    """
    started = monotonic()
    prompt_id = str(uuid.uuid4())
    prefix = f"{SUBFOLDER}/{safe_name(video.stem)}-{prompt_id[:8]}"

    def attempt(name: str) -> Path:
        graph = workflow.for_video(name, prefix)
        result = client.run(graph, on_progress, prompt_id=prompt_id)
        saved = result.entries(workflow.save_node)
        if not saved:
            raise PromptError(f"node {workflow.save_node} saved nothing")
        return download(client, saved[-1], out)

    with (
        on_server(client, video, content or content_hash(video), input_dir) as there,
        cancel_on_error(client, prompt_id),
    ):
        path = outlast(client, lambda: attempt(there()), patience)
    return VideoResult(path, count_frames(path), monotonic() - started)


@contextmanager
def cancel_on_error(client: ComfyClient, prompt_id: str) -> Iterator[None]:
    """Cancel the prompt on the server if the block fails or is interrupted."""
    try:
        yield
    except BaseException:
        # Harmless when the prompt has ended, or was never queued.
        with suppress(PromptError):
            client.cancel(prompt_id)
        raise


def outlast(client: ComfyClient, attempt: Callable[[], Path], patience: float) -> Path:
    """Retry after each lost connection. Raises PromptError after MOST_LOSSES of them."""
    for _ in range(MOST_LOSSES):
        try:
            return attempt()
        except ConnectionLostError:
            client.wait_until_up(patience)
    raise PromptError(f"the server went away {MOST_LOSSES} times while this video ran")


def count_frames(path: Path) -> int:
    """Count a video's frames without decoding them. Raises PromptError if it is no video."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
    except (av.error.FFmpegError, IndexError) as error:
        raise PromptError(f"what came back is no video: {error}") from error


def safe_name(stem: str) -> str:
    """Replace the characters of a file's stem that Save Video or a file system may interpret."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:60] or "video"

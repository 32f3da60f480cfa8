"""Translate one video on one server: a plain function, also for callers with many of both."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TypeVar

import av

from .answers import Progress, SavedFile
from .backoff import Backoff
from .client import ComfyClient
from .errors import ConnectionLostError, PromptError, PromptRefusedError, SilentError
from .ledger import content_hash
from .transfer import SUBFOLDER, downloaded, on_server
from .workflow import Workflow

T = TypeVar("T")
PATIENCE_SECONDS = 300.0
# A video that loses the server this many times is taken for the cause.
MOST_LOSSES = 5
# One that is silent this many times in a row, each time so soon, will not answer the next time.
MOST_SILENCES, SOON_SECONDS = 2, 180.0


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

    def attempt(name: str) -> tuple[Path, int]:
        graph = workflow.for_video(name, prefix)
        with refusal_of_video(workflow.video_node):
            result = client.run(graph, on_progress, prompt_id=prompt_id)
        saved = result.entries(workflow.save_node)
        if not saved:
            raise PromptError(f"node {workflow.save_node} saved no file")
        return fetch_video(client, saved[-1], out)

    with (
        on_server(client, video, content or content_hash(video), input_dir) as there,
        cancel_on_error(client, prompt_id),
    ):
        path, frames = outlast(client, lambda: attempt(there()), patience)
    return VideoResult(path, frames, monotonic() - started)


def fetch_video(client: ComfyClient, saved: SavedFile, out: Path) -> tuple[Path, int]:
    """Fetch a result: (path, frames). Raises PromptError if it is no video, and keeps none."""
    with downloaded(client, saved, out) as (part, path):
        try:
            frames = count_frames(part)
        except PromptError as error:
            raise PromptError(f"{error} (in the server's output folder: {saved.path})") from error
        os.replace(part, path)
    return path, frames


@contextmanager
def refusal_of_video(video_node: str) -> Iterator[None]:
    """Turn the refusal of a graph for nothing but its video into the failure of that video."""
    try:
        yield
    except PromptRefusedError as error:
        if error.nodes != {video_node}:
            raise
        raise PromptError(str(error)) from error


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


def outlast(client: ComfyClient, attempt: Callable[[], T], patience: float) -> T:
    """Try again after each lost connection, later and later.

    Raises PromptError after MOST_LOSSES of them, or MOST_SILENCES in a row of a server that is
    there but does not answer, with the last reason.
    """
    backoff, losses, silences = Backoff(client.sleep), 0, 0
    while True:
        began = monotonic()
        try:
            return attempt()
        except ConnectionLostError as error:
            losses += 1
            soon = isinstance(error, SilentError) and monotonic() - began < SOON_SECONDS
            silences = silences + 1 if soon else 0
            if losses == MOST_LOSSES or silences == MOST_SILENCES:
                raise PromptError(f"given up after {losses} lost connections: {error}") from error
        backoff.wait()
        client.wait_until_up(patience)


def count_frames(path: Path) -> int:
    """Count a video's frames. Raises PromptError if it is no video, or its first is damaged."""
    try:
        with opened(path) as container:
            stream = container.streams.video[0]
            if next(container.decode(stream), None) is None:
                raise PromptError("what came back is no video: it holds no frame")
            if stream.frames:
                return stream.frames
        with opened(path) as container:
            return sum(packet.size > 0 for packet in container.demux(video=0))
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise PromptError(f"what came back is no video: {error}") from error


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a video, and no other file or address that it may name: it came from elsewhere."""
    options = {"protocol_whitelist": "none"}
    with open(path, "rb") as file, av.open(file, "r", options=options) as container:
        yield container


def safe_name(stem: str) -> str:
    """Replace the characters of a file's stem that Save Video or a file system may interpret."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:60] or "video"

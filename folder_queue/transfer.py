"""Send videos to the server and fetch the results."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import aiohttp

from .answers import SavedFile
from .connection import ANSWER_SECONDS, Connection
from .errors import AnswerError, ConnectionLostError, UploadRefusedError

# Subfolder of the server's input folder for videos, and of its output folder for results.
SUBFOLDER = "queue_folder"
TOO_LARGE = 413
# Bytes that a server accepts unless it was started with another --max-upload-size.
USUAL_LIMIT = 100 * 2**20
# Bytes per second; an upload that is slower on average times out.
SLOWEST_UPLOAD = 2**14


@contextmanager
def on_server(
    connection: Connection, video: Path, content: str, input_dir: Path | None
) -> Iterator[Callable[[], str]]:
    """Keep a video in the server's input folder for the length of a `with` block.

    Yields a function that makes sure it is there and returns its name for Load Video. Call it
    again after the connection was lost: a new server may have an empty input folder.

    Args:
        connection: the server.
        video: the local file.
        content: hash of its content, used as its name, so that it is sent only once.
        input_dir: the server's input folder, when this machine can write to it: the video is then
            linked or copied there, and removed at the end; a video that lies there already is used
            where it is. None: the video is uploaded, and stays on the server.
    """
    suffix = re.sub(r"[^a-z0-9.]", "", video.suffix.lower())
    file = SavedFile(f"{content[:32]}{suffix}", SUBFOLDER, "input")
    if input_dir is None:
        yield lambda: upload(connection, video, file)
    elif video.resolve().is_relative_to(input_dir.resolve()):
        yield lambda: video.resolve().relative_to(input_dir.resolve()).as_posix()
    else:
        _place(video, input_dir / file.path)
        try:
            yield lambda: file.path
        finally:
            (input_dir / file.path).unlink(missing_ok=True)


def upload(connection: Connection, video: Path, file: SavedFile) -> str:
    """Upload a video and return its name for Load Video.

    Nothing is sent when the server has `file` in the same size. The video is streamed, so that it
    may be of any size here. Raises UploadRefusedError when it exceeds the server's limit.
    """
    size = video.stat().st_size
    with suppress(AnswerError):
        if connection.ask("HEAD", "/view", params=asdict(file)).size == size:
            return file.path
    form = aiohttp.FormData({"type": file.type, "subfolder": file.subfolder, "overwrite": "true"})
    timeout = aiohttp.ClientTimeout(ANSWER_SECONDS + size / SLOWEST_UPLOAD)
    try:
        with open(video, "rb") as content:
            form.add_field("image", content, filename=file.filename)
            connection.ask("POST", "/upload/image", data=form, timeout=timeout)
    except (AnswerError, ConnectionLostError) as error:
        # A server may close the connection in the middle of too large a video.
        hung_up = isinstance(error, ConnectionLostError) and size > USUAL_LIMIT
        if not (hung_up and connection.is_up()) and getattr(error, "status", 0) != TOO_LARGE:
            raise
        raise UploadRefusedError(
            f"the server does not take {size / 2**20:.0f} MB. Start it with a larger "
            "--max-upload-size (in MB), or give its input folder with --input-dir if this machine "
            "can write to it"
        ) from error
    return file.path


def download(connection: Connection, saved: SavedFile, target: Path) -> Path:
    """Fetch a saved file to `target`, atomically, and return the path written.

    The path is `target` with the saved file's ending appended.
    """
    target = target.with_name(target.name + Path(saved.filename).suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with open(part, "wb") as file:
            connection.ask("GET", "/view", file, params=asdict(saved))
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _place(video: Path, place: Path) -> None:
    """Make a file appear at `place`: a hard link where possible, else a copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(video.resolve(), place)
    except OSError:
        # The folder is on another file system, or on one without hard links.
        shutil.copyfile(video, place)

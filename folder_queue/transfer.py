"""Send videos to the server and fetch the results."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import aiohttp

from .answers import SavedFile, parse_uploaded
from .connection import ANSWER_SECONDS, DOCUMENT, Connection
from .errors import AnswerError, ConnectionLostError, PromptError, UploadRefusedError
from .parts import part_beside, real_path

# Subfolder of the server's input folder for videos, and of its output folder for results.
SUBFOLDER = "queue_folder"
TOO_LARGE = 413
# Bytes that a server accepts unless it was started with another --max-upload-size.
USUAL_LIMIT = 100 * 2**20
# Bytes per second; an upload that is slower on average times out.
SLOWEST_UPLOAD = 2**14
ENDING = re.compile(r"\.[A-Za-z0-9]{1,10}")


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
    suffix = re.sub(r"[^a-z0-9.]", "", video.suffix.lower())[:10]
    file = SavedFile(f"{content[:32]}{suffix}", SUBFOLDER, "input")
    if input_dir is None:
        yield lambda: upload(connection, video, file)
    elif (inside := name_inside(video, input_dir)) is not None:
        yield lambda: inside
    else:
        # Another run may have the same video there, and removes its own.
        own = SavedFile(f"{content[:32]}-{uuid.uuid4().hex[:8]}{suffix}", SUBFOLDER, "input")
        _place(video, input_dir / own.path)
        try:
            yield lambda: own.path
        finally:
            # A link that cannot be removed costs a finished video nothing.
            with suppress(OSError):
                (input_dir / own.path).unlink()


def name_inside(video: Path, input_dir: Path) -> str | None:
    """Return the path of a video within the server's input folder; None if it has none.

    A name that is no text is none either: it would go to the server in JSON.
    """
    real, base = real_path(video), real_path(input_dir)
    inside = real.is_relative_to(base) and real.relative_to(base).as_posix()
    return inside if inside and inside.isprintable() else None


def upload(connection: Connection, video: Path, file: SavedFile) -> str:
    """Upload a video and return its name for Load Video.

    Nothing is sent when the server has `file` in the same size. The video is streamed, so that it
    may be of any size here. Raises UploadRefusedError when it exceeds the server's limit.
    """
    size = video.stat().st_size
    with suppress(AnswerError):
        if connection.ask("HEAD", "/view", params=asdict(file), timeout=DOCUMENT).size == size:
            return file.path
    form = aiohttp.FormData({"type": file.type, "subfolder": file.subfolder, "overwrite": "true"})
    timeout = aiohttp.ClientTimeout(ANSWER_SECONDS + size / SLOWEST_UPLOAD)
    try:
        # As bytes, because aiohttp encodes a file's own name even where it is given another.
        with open(os.fsencode(video), "rb") as content:
            form.add_field("image", content, filename=file.filename)
            answer = connection.ask("POST", "/upload/image", data=form, timeout=timeout)
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
    return parse_uploaded("/upload/image", answer.body).path


def download(connection: Connection, saved: SavedFile, target: Path) -> Path:
    """Fetch a saved file to `target`, atomically, and return the path written.

    The path is `target` with the saved file's ending appended.
    """
    with downloaded(connection, saved, target) as (part, path):
        os.replace(part, path)
    return path


@contextmanager
def downloaded(
    connection: Connection, saved: SavedFile, target: Path
) -> Iterator[tuple[Path, Path]]:
    """Fetch a saved file for the length of a `with` block: (temporary file, final path).

    What the block does not move from the one to the other is dropped.
    """
    path = target.with_name(target.name + _ending(saved))
    path.parent.mkdir(parents=True, exist_ok=True)
    with part_beside(path) as part:
        with open(part, "wb") as file:
            connection.ask("GET", "/view", file, params=asdict(saved))
        yield part, path


def _ending(saved: SavedFile) -> str:
    """Return the ending of a file on the server. Raises PromptError if it is none for a video."""
    ending = Path(saved.filename).suffix
    # The ledger and the report end in .json.
    if ENDING.fullmatch(ending) is None or ending.lower() == ".json":
        raise PromptError(f"the server saved {saved.path!r}, which has no video's ending")
    return ending


def _place(video: Path, place: Path) -> None:
    """Make a file appear at `place`: a hard link where possible, else a copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(real_path(video), place)
    except OSError:
        # The folder is on another file system, or on one without hard links.
        shutil.copyfile(video, place)

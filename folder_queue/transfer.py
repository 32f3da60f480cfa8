"""Videos to the server and results back."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .connection import AnswerError, Connection
from .errors import ConnectionLostError, PromptError, UploadRefusedError

# Folder in the server's input folder for videos, and in its output folder for results.
SUBFOLDER = "queue_folder"
TOO_LARGE = 413
# What a server takes unless it was started with another --max-upload-size.
USUAL_LIMIT = 100 * 2**20
_CHUNK = 1 << 20


@contextmanager
def on_server(
    connection: Connection, video: Path, content: str, input_dir: Path | None
) -> Iterator[Callable[[], str]]:
    """Have a video in the server's input folder.

    Yields a function that makes sure it is there and returns its name for Load Video. Call it
    again after the connection was lost: a new server may have an empty input folder.

    Args:
        connection: the server.
        video: the file here.
        content: hash of its content, which becomes its name, so that it is sent only once.
        input_dir: the server's input folder, when this machine can write to it: then nothing is
            sent, and what is put there is taken away at the end. A video that lies there already
            is used where it is. None: the video is uploaded, and stays.
    """
    suffix = re.sub(r"[^a-z0-9.]", "", video.suffix.lower())
    name = f"{content[:32]}{suffix}"

    def send() -> str:
        upload(connection, video, name)
        return f"{SUBFOLDER}/{name}"

    if input_dir is None:
        yield send
    elif video.resolve().is_relative_to(input_dir.resolve()):
        inside = video.resolve().relative_to(input_dir.resolve()).as_posix()
        yield lambda: inside
    else:
        place = input_dir / SUBFOLDER / name
        _place(video, place)
        try:
            yield lambda: f"{SUBFOLDER}/{name}"
        finally:
            place.unlink(missing_ok=True)


def upload(connection: Connection, video: Path, name: str) -> None:
    """Send a video into the server's input folder, unless a file of that name and size is there.

    It is sent as it is read, so that its size does not matter here. The server has a limit:
    UploadRefusedError when the video is larger.
    """
    size = video.stat().st_size
    if _size_there(connection, name) == size:
        return
    boundary = uuid.uuid4().hex
    head, tail = _form(boundary, name)
    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(len(head) + size + len(tail)),
    }
    try:
        with open(video, "rb") as file:
            body = itertools.chain([head], iter(lambda: file.read(_CHUNK), b""), [tail])
            with connection.open("/upload/image", body, headers):
                return
    except AnswerError as error:
        if error.status != TOO_LARGE:
            raise
        refusal: PromptError = error
    except ConnectionLostError as error:
        # A server that has read enough of too large a video hangs up in mid-sentence.
        if size <= USUAL_LIMIT or not connection.is_up():
            raise
        refusal = error
    raise UploadRefusedError(
        f"the server does not take {size / 2**20:.0f} MB. Start it with a larger --max-upload-size "
        "(in MB), or give its input folder with --input-dir if this machine can write to it"
    ) from refusal


def download(connection: Connection, entry: dict[str, str], target: Path) -> Path:
    """Fetch a saved file, {filename, subfolder, type}, to `target`, which is whole or not there.

    The ending of `target` is replaced by the saved file's. Returns the path written.
    """
    target = target.with_name(target.name + Path(entry["filename"]).suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    query = urllib.parse.urlencode({key: entry[key] for key in ("filename", "subfolder", "type")})
    try:
        with connection.open(f"/view?{query}") as reply, open(part, "wb") as file:
            shutil.copyfileobj(reply, file, _CHUNK)
            wanted = reply.headers.get("Content-Length")
        if wanted is not None and part.stat().st_size != int(wanted):
            raise ConnectionLostError(f"{entry['filename']} broke off while it was fetched")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _size_there(connection: Connection, name: str) -> int | None:
    """Size of an uploaded file, or None if it is not there."""
    query = urllib.parse.urlencode({"filename": name, "subfolder": SUBFOLDER, "type": "input"})
    try:
        with connection.open(f"/view?{query}", method="HEAD") as reply:
            return int(reply.headers.get("Content-Length") or -1)
    except AnswerError:
        return None


def _form(boundary: str, name: str) -> tuple[bytes, bytes]:
    """What stands before and after the file in the form that /upload/image takes."""
    fields = {"type": "input", "subfolder": SUBFOLDER, "overwrite": "true"}
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    ]
    lines.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return "".join(lines).encode(), f"\r\n--{boundary}--\r\n".encode()


def _place(video: Path, place: Path) -> None:
    """Make a file appear at `place`: a second name for the same file where possible, or a copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(video.resolve(), place)
    except OSError:
        # Another disk, or one without links.
        shutil.copyfile(video, place)

"""The node that outputs a folder's videos and picture sequences, one for each queued run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import folder_paths
from comfy_api.latest import InputImpl, io

from ..live2diff_core.video.folder import (
    VIDEO_PATTERN,
    folder_inside,
    is_sequence,
    list_videos,
    list_videos_and_sequences,
    picture_names,
    require_inside,
)
from ..live2diff_core.video.pictures import PICTURE_RATE
from .node_text import show_text
from .picture_video import PictureVideo
from .types import CATEGORY

NAME = "Video From Folder"
LARGEST_INDEX = 999_999


class Live2DiffVideoFromFolder(io.ComfyNode):
    """Outputs the videos of a folder, the next one at every run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffVideoFromFolder",
            display_name=NAME,
            category=CATEGORY,
            description="Gives the videos of a folder one after another: the index counts up after "
            "each run. Set the batch count to the number of videos, or run with auto-queue; it "
            "stops after the last one. A folder of numbered pictures is a video, too.",
            search_aliases=[
                "load video folder",
                "batch videos",
                "video list",
                "image sequence",
                "png sequence",
            ],
            inputs=_inputs(),
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        folder: str | None = None,
        pattern: str | None = None,
        index: int | None = None,
        recursive: bool | None = False,
        frame_rate: float | None = PICTURE_RATE,
    ) -> bool | str:
        """Report errors before the run; linked inputs have no value yet.

        The errors refuse the run, because a failed run increments the index, which auto-queue on
        change would take for a change, so that it would never stop after the last video.
        """
        if None in (folder, pattern, index, recursive, frame_rate):
            return True
        try:
            cls._choose(folder, pattern, index, recursive, frame_rate)
        except (ValueError, OSError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls,
        folder: str | None = None,
        pattern: str | None = None,
        index: int | None = None,
        recursive: bool | None = False,
        frame_rate: float | None = PICTURE_RATE,
    ) -> str | float:
        """Return a value that changes with the folder's videos, or always if they are unknown."""
        if None in (folder, pattern, recursive, frame_rate):
            return float("nan")
        try:
            place, videos = _videos(folder, pattern, recursive, frame_rate > 0)
            files = [file for video in videos for file in _files_of(place / video)]
            state = [(str(file), *_version(file)) for file in files]
        except (ValueError, OSError):
            return float("nan")
        return hashlib.sha256(repr(state).encode()).hexdigest()

    @classmethod
    def execute(
        cls,
        folder: str,
        pattern: str,
        index: int,
        recursive: bool = False,
        frame_rate: float = PICTURE_RATE,
    ) -> io.NodeOutput:
        """Return the chosen video without reading it."""
        path, count = cls._choose(folder, pattern, index, recursive, frame_rate)
        show_text(cls.hidden.unique_id, f"{index + 1} of {count}: {path.name}")
        if path.is_dir():
            return io.NodeOutput(PictureVideo(str(path), frame_rate), path.name, index, count)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), path.stem, index, count)

    @classmethod
    def _choose(
        cls, folder: str, pattern: str, index: int, recursive: bool, frame_rate: float
    ) -> tuple[Path, int]:
        """Choose the video; show errors on the node, because the page hides them."""
        try:
            return choose_video(folder, pattern, index, recursive, frame_rate > 0)
        except (ValueError, OSError) as error:
            text = str(error).removeprefix(f"{NAME}: ")
            show_text(cls.hidden.unique_id, text[0].upper() + text[1:])
            raise


def _inputs() -> list:
    return [
        io.String.Input(
            "folder",
            default="",
            tooltip="A folder in ComfyUI's input folder, of videos, of folders of numbered "
            "pictures, or of numbered pictures. Empty: the input folder itself.",
        ),
        io.String.Input(
            "pattern",
            default=VIDEO_PATTERN,
            tooltip="Which video files, by name: patterns with * and ?, separated by semicolons.",
        ),
        io.Int.Input(
            "index",
            default=0,
            min=0,
            max=LARGEST_INDEX,
            control_after_generate=io.ControlAfterGenerate.increment,
            tooltip="Which video, from 0, in natural order (clip2 before clip10). Counts "
            "up after each run while the control below it says increment.",
        ),
        io.Boolean.Input(
            "recursive",
            default=False,
            optional=True,
            tooltip="Whether videos in subfolders count, too. A folder of numbered "
            "pictures directly in the folder always does.",
        ),
        io.Float.Input(
            "frame_rate",
            default=float(PICTURE_RATE),
            min=0.0,
            max=1000.0,
            step=0.001,
            optional=True,
            tooltip="Frames per second of numbered pictures; videos bring their own. 0 "
            "leaves pictures out.",
        ),
    ]


def _outputs() -> list:
    return [
        io.Video.Output(display_name="video", tooltip="The video; nothing is decoded yet."),
        io.String.Output(
            display_name="name",
            tooltip="The file's name without its ending, or the name of the folder of "
            "pictures, for instance for Save Video's filename prefix.",
        ),
        io.Int.Output(display_name="index", tooltip="Which of the videos it is, from 0."),
        io.Int.Output(display_name="count", tooltip="How many videos there are."),
    ]


def choose_video(
    folder: str, pattern: str, index: int, recursive: bool, pictures: bool
) -> tuple[Path, int]:
    """Return the path of video number `index` (a file or a folder) and the number of videos.

    Args:
        pictures: whether folders of numbered pictures count as videos.

    Raises:
        FileNotFoundError: there is no such folder, or no video in it.
        ValueError: the folder or video is outside the input folder, or `index` is past the end.
    """
    place, videos = _videos(folder, pattern, recursive, pictures)
    if not videos:
        raise FileNotFoundError(_nothing_found(place, pattern, recursive, pictures))
    if index < 0:
        raise ValueError(f"{NAME}: index is {index}; the first video has index 0.")
    if index >= len(videos):
        # The node has room for two lines, so the remedy comes first.
        raise ValueError(
            f"{NAME}: all {len(videos)} videos are done. Set index to 0 to begin again. (index is "
            f"{index}; the folder is {place}.)"
        )
    path = place / videos[index]
    try:
        # The folder is inside the input folder, and links to folders are not followed.
        for file in _files_of(path):
            if file.is_symlink():
                require_inside(_input_folder(), file)
    except ValueError as error:
        raise ValueError(f"{NAME}: {error}.") from error
    return path, len(videos)


def _videos(folder: str, pattern: str, recursive: bool, pictures: bool) -> tuple[Path, list[Path]]:
    try:
        place = folder_inside(_input_folder(), folder)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{NAME}: {error}.") from error
    list_all = list_videos_and_sequences if pictures else list_videos
    return place, list_all(place, pattern, recursive)


def _files_of(video: Path) -> Iterator[Path]:
    if not video.is_dir():
        yield video
        return
    for name in picture_names(video):
        yield video / name


def _version(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _nothing_found(place: Path, pattern: str, recursive: bool, pictures: bool) -> str:
    depth = "or its subfolders" if recursive else "(recursive is off)"
    text = f"{NAME}: no file matches {pattern!r} in {place} {depth}"
    names = picture_names(place)
    if not names:
        return f"{text}{', and there are no numbered pictures' if pictures else ''}."
    if not pictures and is_sequence(names):
        return f"{text}, and its pictures are left out because frame_rate is 0."
    some = ", ".join([*names[:3], "…"] if names[3:] else names)
    return (
        f"{text}, and its pictures ({some}) are not one video: their names must differ in one "
        "number only, as in shot_0001.png, shot_0002.png."
    )


def _input_folder() -> Path:
    return Path(folder_paths.get_input_directory())

"""A folder of videos, one after another, as the queue runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import folder_paths
from comfy_api.latest import InputImpl, io

from ..live2diff_core.video_folder import (
    VIDEO_PATTERN,
    folder_inside,
    list_videos,
    require_inside,
)
from .types import CATEGORY

LARGEST_INDEX = 999_999


class Live2DiffVideoFromFolder(io.ComfyNode):
    """Gives the videos of a folder, the next one at every run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="Live2DiffVideoFromFolder",
            display_name="Video From Folder",
            category=CATEGORY,
            description="Gives the videos of a folder one after another: the index counts up after "
            "each run. Set the batch count to the number of videos, or run with auto-queue; it "
            "stops after the last one.",
            search_aliases=["load video folder", "batch videos", "video list"],
            inputs=[
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder in ComfyUI's input folder. Empty: the input folder itself.",
                ),
                io.String.Input(
                    "pattern",
                    default=VIDEO_PATTERN,
                    tooltip="Which files, by name: patterns with * and ?, separated by semicolons.",
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
                    tooltip="Whether videos in subfolders count, too.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video", tooltip="The video as a file; nothing is decoded yet."
                ),
                io.String.Output(
                    display_name="name",
                    tooltip="The file's name without its ending, for instance for Save Video's "
                    "filename prefix.",
                ),
                io.Int.Output(display_name="index", tooltip="Which of the videos it is, from 0."),
                io.Int.Output(display_name="count", tooltip="How many videos there are."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        folder: str | None = None,
        pattern: str | None = None,
        index: int | None = None,
        recursive: bool | None = False,
    ) -> bool | str:
        """Say before the run what is wrong; inputs that other nodes give are not known yet."""
        if folder is None or pattern is None or index is None or recursive is None:
            return True
        try:
            choose_video(folder, pattern, index, recursive)
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
    ) -> str | float:
        """Change whenever a video is added, removed or written, or always when that is unknown."""
        if folder is None or pattern is None or recursive is None:
            return float("nan")
        try:
            place, videos = _videos(folder, pattern, recursive)
            stats = [(place / video).stat() for video in videos]
        except (ValueError, OSError):
            return float("nan")
        state = [
            (video.as_posix(), stat.st_size, stat.st_mtime_ns)
            for video, stat in zip(videos, stats, strict=True)
        ]
        return hashlib.sha256(repr(state).encode()).hexdigest()

    @classmethod
    def execute(
        cls, folder: str, pattern: str, index: int, recursive: bool = False
    ) -> io.NodeOutput:
        """Choose the video; nothing of it is read."""
        video, count = choose_video(folder, pattern, index, recursive)
        return io.NodeOutput(InputImpl.VideoFromFile(str(video)), video.stem, index, count)


def choose_video(folder: str, pattern: str, index: int, recursive: bool) -> tuple[Path, int]:
    """Path of video number `index`, and how many there are.

    Raises:
        FileNotFoundError: there is no such folder, or no video in it.
        ValueError: the folder or the video leads out of the input folder, or all are done.
    """
    place, videos = _videos(folder, pattern, recursive)
    if not videos:
        depth = "or its subfolders" if recursive else "(recursive is off)"
        raise FileNotFoundError(
            f"Video From Folder: no file in {place} {depth} matches {pattern!r}."
        )
    if index < 0:
        raise ValueError(f"Video From Folder: index is {index}; the first video has index 0.")
    if index >= len(videos):
        raise ValueError(
            f"Video From Folder: all {len(videos)} videos of {place} are done (index is {index}). "
            "Set index to 0 to begin again."
        )
    path = place / videos[index]
    try:
        require_inside(_input_folder(), path)
    except ValueError as error:
        raise ValueError(f"Video From Folder: {error}.") from error
    return path, len(videos)


def _videos(folder: str, pattern: str, recursive: bool) -> tuple[Path, list[Path]]:
    try:
        place = folder_inside(_input_folder(), folder)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"Video From Folder: {error}.") from error
    return place, list_videos(place, pattern, recursive)


def _input_folder() -> Path:
    return Path(folder_paths.get_input_directory())

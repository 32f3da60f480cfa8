"""Whether folders of partial results can be read: one that cannot must not pass for empty."""

from __future__ import annotations

import os
from pathlib import Path

from .folder_lock import PartialFolderError


def check_readable(folder: Path) -> None:
    """Refuse a folder whose files cannot be listed or reached; it need not exist.

    `Path.glob` finds nothing in it, so that its files would be written anew over the old ones.

    Raises:
        PartialFolderError: it cannot be read, or is no folder.
    """
    try:
        os.listdir(folder)
        os.stat(os.path.join(folder, "."))  # May list, but not enter: no file in it opens.
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unusable(folder, error) from error


def unusable(folder: Path, error: OSError) -> PartialFolderError:
    """Return the error for a folder of partial results, with its remedy."""
    if isinstance(error, NotADirectoryError | FileExistsError) and not folder.is_dir():
        return PartialFolderError(
            f"{folder} is a file; partial results need a folder of that name. Move the file "
            "away, then run it again."
        )
    return PartialFolderError(
        f"The folder of partial results {folder} cannot be used ({error.strerror}: "
        f"{error.filename}). Let ComfyUI read and write it, or move it away, then run it again."
    )

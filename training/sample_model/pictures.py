"""The photographs that the sample model learns from: free ones, from packages on this machine.

No picture is part of this repository. The photograph of the demo (scikit-image's astronaut) is not
among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

# Longest side to which a picture is reduced before it is used.
LONGEST = 1280


@dataclass(frozen=True)
class Source:
    """Some pictures of one package.

    Attributes:
        package: its name, for the user who lacks it.
        licence: that of the pictures.
        folder: where they lie.
        patterns: of their paths below `folder`; of several sizes of a picture, one is taken.
    """

    package: str
    licence: str
    folder: Path
    patterns: tuple[str, ...]

    def files(self) -> list[Path]:
        """List the files that are there, one of each picture, in a fixed order."""
        found: dict[str, Path] = {}
        for pattern in self.patterns:
            for path in sorted(self.folder.glob(pattern)):
                if path.is_file() and not path.is_symlink():
                    # Of a wallpaper, the folder above names the picture and the file its size.
                    name = path.parts[-4] if "contents" in path.parts else path.stem
                    found.setdefault(name, path)
        return list(found.values())


def sources() -> list[Source]:
    """List the packages whose pictures are used."""
    nature = [
        *("Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "GreenMeadow", "LadyBird"),
        *("RainDrops", "Storm", "TwoWings", "Wood", "YellowFlower"),
    ]
    bundled = ["brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon"]
    bundled += ["hubble_deep_field", "motorcycle_left", "rocket", "color"]
    wallpapers = Path("/usr/share/wallpapers")
    backgrounds = Path("/usr/share/backgrounds/mate")
    return [
        Source(
            "scikit-image (PyPI)",
            "CC0 or public domain",
            _package("skimage", "data"),
            tuple(f"{name}.*" for name in bundled),
        ),
        Source(
            "scikit-learn (PyPI)",
            "CC-BY 2.0",
            _package("sklearn", "datasets", "images"),
            ("china.jpg", "flower.jpg"),
        ),
        Source(
            "matplotlib (PyPI)",
            "public domain",
            _package("matplotlib", "mpl-data", "sample_data"),
            ("grace_hopper.jpg",),
        ),
        Source(
            "plasma-workspace-wallpapers (Debian)",
            "GPL-2+",
            wallpapers,
            ("*/contents/images/*x*.jpg", "*/contents/images/*x*.png"),
        ),
        Source(
            "mate-backgrounds (Debian)",
            "GPL-2+",
            backgrounds,
            tuple(f"nature/{name}.jpg" for name in nature),
        ),
    ]


def held_out_sources() -> list[Source]:
    """List the packages whose pictures are in no training set: the model is judged on them."""
    folder, names = Path("/usr/share/backgrounds"), "*_by_*.jpg"
    return [
        Source(
            "lomiri-wallpapers-16.04, lomiri-wallpapers-20.04 (Debian)",
            "CC-BY, CC-BY-SA, CC0",
            folder,
            (names,),
        ),
    ]


def _package(name: str, *inside: str) -> Path:
    spec = find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0], *inside) if places else Path("/nonexistent", name)


def photographs(held_out: bool = False) -> Iterator[np.ndarray]:
    """Yield each picture, [H, W, 3] uint8, its longest side at most `LONGEST`.

    Args:
        held_out: those that the model is judged on, instead of those that it learns from.

    Raises:
        FileNotFoundError: a package is missing; the message names it.
    """
    for source in held_out_sources() if held_out else sources():
        files = source.files()
        if not files:
            raise FileNotFoundError(
                f"There are no pictures in {source.folder}. Install the package {source.package}."
            )
        for path in files:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
                picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
                yield np.asarray(picture)

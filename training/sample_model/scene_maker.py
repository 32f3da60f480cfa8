"""Draws scenes at random: a background, often a floor, and some things before it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .scenes import Picture, Plane, Scene

EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_PACKAGE = "fonts-noto-color-emoji (Debian)"
# The size of the bitmaps in the font.
EMOJI_SIZE = 109
# Blocks of the font's code points: animals, food, things, faces, vehicles.
EMOJI_BLOCKS = ((0x1F400, 0x1F43E), (0x1F345, 0x1F37F), (0x1F600, 0x1F640), (0x1F680, 0x1F6A4))
TEXTURE = 512


class SceneMaker:
    """Makes scenes from photographs.

    Args:
        photographs: [H, W, 3] uint8 each.

    Raises:
        FileNotFoundError: the emoji font is missing; the message names the package.
    """

    def __init__(self, photographs: Sequence[Picture]) -> None:
        """Keep the photographs and open the font."""
        self._photographs = list(photographs)
        if not EMOJI_FONT.is_file():
            raise FileNotFoundError(f"There is no {EMOJI_FONT}. Install {EMOJI_PACKAGE}.")
        self._font = ImageFont.truetype(str(EMOJI_FONT), EMOJI_SIZE)

    def make(self, seed: int) -> Scene:
        """Draw the scene of a seed."""
        random = np.random.default_rng(seed)
        planes = [self._background(random)]
        if random.random() < 0.6:
            planes.append(self._floor(random, planes[0].inverse_depth[0]))
        near = np.sort(random.uniform(0.3, 1.0, random.integers(1, 5)))
        planes += [self._thing(random, float(depth)) for depth in near]
        return Scene(
            tuple(planes),
            camera=tuple(random.normal(0, (0.02, 0.012, 0.012))),
            haze=float(random.choice([0, 0, 0.3, 0.6])),
            haze_colour=tuple(random.uniform(0.4, 1, 3)),
        )

    def crop(self, random: np.random.Generator, smallest: int = 128) -> Picture:
        """Cut a square from a photograph, [TEXTURE, TEXTURE, 3] float32, turned over at random."""
        picture = self._photographs[random.integers(len(self._photographs))]
        height, width = picture.shape[:2]
        side = int(random.integers(min(smallest, height, width), min(height, width) + 1))
        top, left = (int(random.integers(n - side + 1)) for n in (height, width))
        cut = cv2.resize(
            picture[top : top + side, left : left + side],
            (TEXTURE, TEXTURE),
            interpolation=cv2.INTER_AREA if side > TEXTURE else cv2.INTER_CUBIC,
        )
        if random.random() < 0.5:
            cut = cut[:, ::-1]
        return _recoloured(cut.astype(np.float32) / 255, random)

    def _background(self, random: np.random.Generator) -> Plane:
        colour = self.crop(random, 300) if random.random() < 0.75 else _gradient(random)
        depth = float(random.uniform(0.03, 0.2))
        return Plane(_opaque(colour), 1.5, (depth, 0.0, 0.0))

    def _floor(self, random: np.random.Generator, far: float) -> Plane:
        """Make a plane that comes nearer from a horizon on downwards."""
        horizon, near = random.uniform(-0.1, 0.6), random.uniform(0.5, 1.0)
        texture = _opaque(self.crop(random))
        line = np.linspace(-1.5, 1.5, TEXTURE)
        texture[line < horizon, :, 3] = 0
        slope = (near - far) / (1 - horizon)
        return Plane(texture, 1.5, (far - slope * horizon, 0.0, float(slope)))

    def _thing(self, random: np.random.Generator, depth: float) -> Plane:
        kinds = (self._emoji, self._blob, self._card)
        texture = kinds[random.choice(3, p=(0.4, 0.4, 0.2))](random)
        moves = random.random() < 0.6
        return Plane(
            texture,
            half_side=float(random.uniform(0.15, 0.45) + 0.25 * depth),
            inverse_depth=(depth, 0.0, 0.0),
            position=tuple(random.uniform(-0.7, 0.7, 2)),
            velocity=tuple(random.normal(0, 0.02, 2) * moves),
            angle=float(random.normal(0, 0.3)),
            spin=float(random.normal(0, 0.015) * moves),
        )

    def _emoji(self, random: np.random.Generator) -> Picture:
        block = EMOJI_BLOCKS[random.integers(len(EMOJI_BLOCKS))]
        drawn = Image.new("RGBA", (136, 136))
        character = chr(int(random.integers(*block)))
        ImageDraw.Draw(drawn).text(
            (68, 68), character, font=self._font, anchor="mm", embedded_color=True
        )
        large = drawn.resize((TEXTURE, TEXTURE), Image.Resampling.BICUBIC)
        return _soft_edge(np.asarray(large).astype(np.float32) / 255)

    def _blob(self, random: np.random.Generator) -> Picture:
        """Draw a round shape, shaded like a ball, with a photograph or a plain colour on it."""
        colour = self.crop(random) if random.random() < 0.5 else _gradient(random)
        line = np.linspace(-1, 1, TEXTURE, dtype=np.float32)
        x, y = np.meshgrid(line, line)
        angle, radius = np.arctan2(y, x), np.hypot(x, y)
        edge = np.full_like(angle, 0.75)
        for wave in range(2, 6):
            edge += random.normal(0, 0.18 / wave) * np.sin(wave * angle + random.uniform(0, 6.3))
        inside = np.clip((edge - radius) * 60, 0, 1)
        light = 0.55 + 0.6 * np.clip(-(x + y) * 0.5 + np.sqrt(np.clip(1 - radius**2, 0, 1)), 0, 1)
        return np.dstack([np.clip(colour * light[..., None], 0, 1), inside]).astype(np.float32)

    def _card(self, random: np.random.Generator) -> Picture:
        texture = _opaque(self.crop(random))
        height, width = random.uniform(0.4, 1, 2)
        line = np.abs(np.linspace(-1, 1, TEXTURE))
        texture[line > height, :, 3] = 0
        texture[:, line > width, 3] = 0
        return texture


def _recoloured(picture: Picture, random: np.random.Generator) -> Picture:
    """Change gamma and the balance of colours a little."""
    gamma, balance = np.exp(random.normal(0, 0.2)), np.exp(random.normal(0, 0.08, 3))
    return np.clip(picture**gamma * balance, 0, 1).astype(np.float32)


def _gradient(random: np.random.Generator) -> Picture:
    """Blend four colours, with a faint pattern of soft noise."""
    corners = random.uniform(0, 1, (2, 2, 3)).astype(np.float32)
    smooth = cv2.resize(corners, (TEXTURE, TEXTURE), interpolation=cv2.INTER_LINEAR)
    cells = int(random.integers(4, 48))
    noise = random.normal(0, random.uniform(0, 0.12), (cells, cells, 1)).astype(np.float32)
    noise = cv2.resize(noise, (TEXTURE, TEXTURE), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(smooth + noise, 0, 1)


def _opaque(colour: Picture) -> Picture:
    return np.dstack([colour, np.ones(colour.shape[:2], np.float32)])


def _soft_edge(texture: Picture) -> Picture:
    """Let the colour of a cut-out reach beyond its edge, so that warping mixes in no black."""
    opacity = texture[..., 3:]
    spread = cv2.GaussianBlur(texture[..., :3] * opacity, (0, 0), 4)
    weight = cv2.GaussianBlur(opacity, (0, 0), 4)[..., None]
    colour = np.where(opacity > 0.5, texture[..., :3], spread / np.maximum(weight, 1e-3))
    return np.dstack([np.clip(colour, 0, 1), opacity]).astype(np.float32)

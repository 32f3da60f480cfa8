"""2.5-D scenes: textured planes before a moving camera, with exact depth and exact optical flow.

A plane has the inverse depth w = a + b x + c y at every point (x, y) of the first picture. A camera
that has moved by T sees that point at ((x - T_x w) / (1 - T_z w), (y - T_y w) / (1 - T_z w)), with
the inverse depth w / (1 - T_z w). As w is linear, this is a homography, so pictures are warped once
and flow and depth follow from the same matrix, without an approximation.

Lengths in the plane of the picture: half its side is 1, its centre 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

Picture = np.ndarray


@dataclass(frozen=True)
class Plane:
    """One textured plane of a scene.

    Attributes:
        texture: [S, S, 4] float32 in 0..1, colour and opacity.
        half_side: half the side that the texture covers.
        inverse_depth: (a, b, c), see above.
        position, velocity: of its centre, in the first picture and per frame.
        angle, spin: rotation in radians, in the first picture and per frame.
    """

    texture: Picture
    half_side: float
    inverse_depth: tuple[float, float, float]
    position: tuple[float, float] = (0.0, 0.0)
    velocity: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    spin: float = 0.0

    def placed(self, time: float) -> np.ndarray:
        """Return the matrix from the texture's plane (-1..1) to the first picture, [3, 3]."""
        angle = self.angle + self.spin * time
        cos, sin = np.cos(angle) * self.half_side, np.sin(angle) * self.half_side
        x, y = (p + v * time for p, v in zip(self.position, self.velocity, strict=True))
        return np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])

    def seen(self, camera: np.ndarray) -> np.ndarray:
        """Return the homography from the first picture to the one at `camera` (T), [3, 3]."""
        a, b, c = self.inverse_depth
        return np.eye(3) - np.outer(camera, (b, c, a))


@dataclass(frozen=True)
class Frame:
    """One rendered frame of side S.

    Attributes:
        picture: [S, S, 3] float32 in 0..1.
        inverse_depth: [S, S] float32, larger is nearer.
        flow: [S, S, 2] float32, in pixels to the next frame.
        visible: [S, S] bool, where the same surface is seen in the next frame at the flow's end.
    """

    picture: Picture
    inverse_depth: np.ndarray
    flow: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Planes, and a camera on a straight way.

    Attributes:
        planes: from far to near.
        camera: movement T per frame.
        haze: how strongly what is far fades, 0 to 1, into `haze_colour`.
    """

    planes: tuple[Plane, ...]
    camera: tuple[float, float, float]
    haze: float = 0.0
    haze_colour: tuple[float, float, float] = (0.8, 0.85, 0.9)

    def frames(self, count: int, side: int) -> Iterator[Frame]:
        """Render `count` frames of side x side pixels, one after another."""
        grid = _grid(side)
        following = self._layers(0, side, grid)
        for index in range(count):
            layers, following = following, self._layers(index + 1, side, grid)
            yield self._frame(layers, following, side)

    def still(self, side: int) -> tuple[Picture, np.ndarray]:
        """Render the first picture [side, side, 3], float32 in 0..1, and its inverse depth."""
        layers = self._layers(0, side, _grid(side))
        return layers.picture, layers.depth

    def _layers(self, time: float, side: int, grid: np.ndarray) -> _Layers:
        camera = np.array(self.camera) * time
        ways = [plane.seen(camera) @ plane.placed(time) for plane in self.planes]
        picture = np.zeros((side, side, 3), np.float32)
        top = np.zeros((side, side), np.int32)
        depth = np.full((side, side), 1e-3, np.float32)
        for index, (plane, way) in enumerate(zip(self.planes, ways, strict=True)):
            seen = _warped(plane.texture, way, side)
            opacity = seen[..., 3:]
            w = _inverse_depth(plane, camera, grid)
            colour = self._hazed(seen[..., :3], w)
            picture = picture * (1 - opacity) + colour * opacity
            here = opacity[..., 0] > 0.5
            top[here], depth[here] = index, w[here]
        return _Layers(ways, picture, top, depth)

    def _hazed(self, colour: Picture, w: np.ndarray) -> Picture:
        share = (self.haze * np.exp(-2.5 * w))[..., None]
        return colour * (1 - share) + np.array(self.haze_colour, np.float32) * share

    def _frame(self, now: _Layers, after: _Layers, side: int) -> Frame:
        grid = _grid(side)
        ends = np.zeros((side, side, 2), np.float32)
        for index, (here, there) in enumerate(zip(now.ways, after.ways, strict=True)):
            on = now.top == index
            points = grid[on] @ (there @ np.linalg.inv(here)).T
            ends[on] = points[:, :2] / points[:, 2:]
        flow = (ends - grid[..., :2]) * (side / 2)
        return Frame(now.picture, now.depth, flow.astype(np.float32), _visible(now, after, ends))


@dataclass(frozen=True)
class _Layers:
    """What is seen at one time: each plane's matrix, the picture, the top plane, its depth."""

    ways: list[np.ndarray]
    picture: Picture
    top: np.ndarray
    depth: np.ndarray


def _grid(side: int) -> np.ndarray:
    """Return the homogeneous coordinates of all pixels' centres, [S, S, 3]."""
    line = (np.arange(side) + 0.5) * (2 / side) - 1
    x, y = np.meshgrid(line, line)
    return np.stack([x, y, np.ones_like(x)], -1)


def _to_pixels(side: int) -> np.ndarray:
    """Return the matrix from -1..1 to the coordinates of OpenCV, in which centres are whole."""
    return np.array([[side / 2, 0, side / 2 - 0.5], [0, side / 2, side / 2 - 0.5], [0, 0, 1]])


def _warped(texture: Picture, way: np.ndarray, side: int) -> Picture:
    matrix = _to_pixels(side) @ way @ np.linalg.inv(_to_pixels(texture.shape[0]))
    return cv2.warpPerspective(texture, matrix, (side, side), flags=cv2.INTER_LINEAR)


def _inverse_depth(plane: Plane, camera: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the inverse depth of a plane at every pixel, as seen from `camera`."""
    first = grid @ np.linalg.inv(plane.seen(camera)).T
    a, b, c = plane.inverse_depth
    w = (b * first[..., 0] + c * first[..., 1]) / first[..., 2] + a
    return (w / np.maximum(1 - camera[2] * w, 0.05)).astype(np.float32)


def _visible(now: _Layers, after: _Layers, ends: np.ndarray) -> np.ndarray:
    """Return whether the surface at every pixel is the top one where its flow ends."""
    side = len(ends)
    x, y = np.rint((np.moveaxis(ends, -1, 0) + 1) * (side / 2) - 0.5).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < side) & (y < side)
    reached = after.top[y.clip(0, side - 1), x.clip(0, side - 1)]
    return inside & (reached == now.top)

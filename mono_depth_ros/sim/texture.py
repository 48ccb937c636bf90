"""Procedural surfaces: tileable linear-reflectance images of wood, tiles, plaster, fabric, art."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
RGB = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Surface:
    """What a part is made of.

    Attributes:
        tile: (h, w, 3) float32 linear reflectance in 0..1; wraps in both directions.
        tile_m: edge length of the tile in metres, or 0 to stretch it over each face once.
        glow: 0 for lit surfaces; otherwise the brightness of the tile, whatever the lighting.
        opaque: False for lampshades and panes, which cast no shadow.
    """

    tile: Image
    tile_m: float = 1.0
    glow: float = 0.0
    opaque: bool = True

    @property
    def plain(self) -> bool:
        """One colour, so that only its lighting needs texels."""
        return bool(self.tile.shape[0] == 1)

    def at(self, u: npt.NDArray[np.float64], v: npt.NDArray[np.float64]) -> Image:
        """Reflectance at coordinates in tiles: u, v of any one shape -> (..., 3) float32."""
        if self.plain:
            return np.broadcast_to(self.tile[0, 0], (*u.shape, 3))
        h, w = self.tile.shape[:2]
        # Wrapped by hand: the wrapped neighbours of border texels matter to tiles, not to art.
        x = (np.mod(u, 1.0) * w - 0.5).astype(np.float32).reshape(u.shape[0], -1)
        y = (np.mod(v, 1.0) * h - 0.5).astype(np.float32).reshape(u.shape[0], -1)
        border = cv2.BORDER_WRAP if self.tile_m else cv2.BORDER_REPLICATE
        sampled = cv2.remap(self.tile, x, y, cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(sampled, np.float32).reshape(*u.shape, 3)


def linear(srgb: npt.ArrayLike) -> Image:
    """Linear reflectance 0..1, float32, of sRGB 0..255."""
    x = np.asarray(srgb, np.float32) / 255
    return np.where(x < 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)


def srgb(radiance: Image) -> npt.NDArray[np.uint8]:
    """The sRGB bytes (uint8) of linear radiance 0..1."""
    x = np.clip(radiance, 0, 1)
    x = np.where(x < 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055)
    return (x * 255 + 0.5).astype(np.uint8)


def plain(colour: RGB) -> Surface:
    """One sRGB colour (0..255)."""
    return Surface(linear(colour).reshape(1, 1, 3))


def glowing(colour: RGB, glow: float = 2.2) -> Surface:
    """A lamp shade or a screen: seen at its own brightness."""
    return Surface(linear(colour).reshape(1, 1, 3), glow=glow, opaque=False)


def noise(
    rng: np.random.Generator, size: int, slope: float, stretch: float = 1.0
) -> npt.NDArray[np.float32]:
    """Tileable noise with a power-law spectrum: (size, size) float32, mean 0, deviation 1.

    Args:
        rng: source of the phases.
        size: pixels.
        slope: 0 is white, 1 is cloudy, 2 is smooth.
        stretch: how many times longer than wide the grain is along u.
    """
    fy, fx = np.fft.fftfreq(size)[:, None] * size, np.fft.rfftfreq(size)[None] * size
    f = np.hypot(fx * stretch, fy)
    gain = np.where(f > 0, np.maximum(f, 1.0) ** -slope, 0)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * gain, (size, size))
    return np.asarray(field / field.std(), np.float32)


def _shade(colour: RGB, relief: npt.NDArray[np.float32]) -> Image:
    return np.clip(linear(colour) * np.exp(relief)[..., None], 0.004, 0.92).astype(np.float32)


def wood(rng: np.random.Generator, colour: RGB) -> Surface:
    """Grain along u."""
    rings = np.sin(noise(rng, 256, 1.6, 12.0) * 5)
    relief = 0.13 * rings + 0.1 * noise(rng, 256, 0.7, 24.0) + 0.06 * noise(rng, 256, 1.5)
    return Surface(_shade(colour, relief.astype(np.float32)), 0.8)


def planks(rng: np.random.Generator, colour: RGB) -> Surface:
    """Floorboards 10 cm wide, shifted against each other."""
    n, rows = 512, 16
    grain = noise(rng, n, 1.0, 16.0) * 0.12 + np.sin(noise(rng, n, 1.6, 12.0) * 4) * 0.07
    relief = np.empty((n, n), np.float32)
    step = n // rows
    for row in range(rows):
        board = np.roll(grain[row * step : (row + 1) * step], int(rng.integers(n)), axis=1)
        tone = np.repeat(rng.normal(0, 0.14, 2), n // 2)[None]
        board = board + np.roll(tone, int(rng.integers(n)), axis=1)
        seam = int(rng.integers(n))
        board[:, [seam, (seam + n // 2) % n]] = -0.9
        board[0] = -0.7
        relief[row * step : (row + 1) * step] = board
    return Surface(_shade(colour, relief), 1.6)


def tiles(rng: np.random.Generator, colour: RGB, edge_m: float = 0.3) -> Surface:
    """Square tiles with pale joints."""
    n, count = 512, 4
    step = n // count
    tone = np.kron(rng.normal(0, 0.05, (count, count)), np.ones((step, step)))
    image = _shade(colour, (tone + 0.07 * noise(rng, n, 1.2)).astype(np.float32))
    joint = np.arange(n) % step < 3
    image[joint] = linear((150, 145, 138))
    image[:, joint] = linear((150, 145, 138))
    return Surface(image, edge_m * count)


def plaster(rng: np.random.Generator, colour: RGB) -> Surface:
    """Rolled paint: barely any texture."""
    relief = 0.025 * noise(rng, 512, 0.5) + 0.03 * noise(rng, 512, 1.8)
    return Surface(_shade(colour, relief.astype(np.float32)), 1.5)


def wallpaper(rng: np.random.Generator, colour: RGB) -> Surface:
    """Soft vertical stripes."""
    u = np.arange(512) / 512 * 2 * np.pi
    count = int(rng.integers(4, 9))
    stripe = np.tanh(3 * np.sin(u * count)) * rng.uniform(0.05, 0.14)
    relief = stripe[None] + 0.03 * noise(rng, 512, 0.6)
    return Surface(_shade(colour, relief.astype(np.float32)), 1.0)


def brick(rng: np.random.Generator, colour: RGB) -> Surface:
    """Running bond, 25 x 7.5 cm."""
    n, rows, columns = 512, 12, 4
    y, x = np.mgrid[:n, :n] / n
    row = np.floor(y * rows).astype(int)
    across = x * columns + (row % 2) * 0.5
    tone = rng.normal(0, 0.16, (rows, columns))[row, np.floor(across).astype(int) % columns]
    image = _shade(colour, (tone + 0.1 * noise(rng, n, 0.8)).astype(np.float32))
    joint = ((y * rows) % 1 < 0.12) | (across % 1 < 0.04)
    image[joint] = linear((168, 160, 150))
    return Surface(image, 0.9)


def fabric(rng: np.random.Generator, colour: RGB) -> Surface:
    """Woven cloth with uneven dye."""
    t = np.arange(256) / 256 * 2 * np.pi * 48
    weave = 0.06 * (np.sin(t)[:, None] + np.sin(t)[None])
    relief = weave + 0.06 * noise(rng, 256, 0.4) + 0.07 * noise(rng, 256, 1.6)
    return Surface(_shade(colour, relief.astype(np.float32)), 0.5)


def folds(rng: np.random.Generator, colour: RGB) -> Surface:
    """Curtain: vertical folds (u runs along the longer edge, so they run along u)."""
    shift = noise(rng, 256, 2.0)[0]
    fold = np.sin(np.arange(256) / 256 * 2 * np.pi * 7 + 0.8 * shift) * 0.3
    relief = np.repeat(fold[:, None], 256, axis=1) + 0.03 * noise(rng, 256, 0.4)
    return Surface(_shade(colour, relief.astype(np.float32)), 0.9)


def carpet(rng: np.random.Generator, colour: RGB) -> Surface:
    """Short pile."""
    relief = 0.14 * noise(rng, 512, 0.15) + 0.07 * noise(rng, 512, 1.5)
    return Surface(_shade(colour, relief.astype(np.float32)), 1.0)


def rug(rng: np.random.Generator, colour: RGB, accent: RGB) -> Surface:
    """A bordered, symmetric pattern over the whole face."""
    n = 256
    y, x = np.abs(np.mgrid[:n, :n] - (n - 1) / 2) / (n / 2)
    edge = np.maximum(x, y)
    k = rng.integers(2, 6, 2)
    field = np.sin(np.pi * k[0] * 2 * x) * np.sin(np.pi * k[1] * 2 * y)
    mask = (np.abs(edge - 0.86) < 0.04) | (np.abs(edge - 0.72) < 0.015)
    mask |= (edge < 0.7) & (field > 0.45)
    pile = (0.12 * noise(rng, n, 0.2)).astype(np.float32)
    return Surface(np.where(mask[..., None], _shade(accent, pile), _shade(colour, pile)), 0.0)


def picture(rng: np.random.Generator) -> Surface:
    """A landscape or an abstract print."""
    n = 128
    y = np.linspace(0, 1, n)[:, None]
    base = rng.uniform(40, 215, (4, 3)) * 0.35 + rng.uniform(40, 215, (4, 1)) * 0.65
    if rng.random() < 0.7:
        sky = linear(base[0]) * (1 - y[..., None]) + linear(base[1]) * y[..., None]
        image = np.repeat(sky, n, axis=1).astype(np.float32)
        for depth, colour in enumerate(base[2:]):
            ridge = 0.45 + 0.2 * depth + 0.06 * noise(rng, n, 1.3)[0]
            image = np.where((y > ridge[None])[..., None], linear(colour), image)
    else:
        field = noise(rng, n, 1.7)
        image = linear(base)[np.digitize(field, [-0.8, 0.0, 0.8])]
    image = np.asarray(image * np.exp(0.12 * noise(rng, n, 0.9))[..., None], np.float32)
    mat = np.maximum(np.abs(y - 0.5), np.abs(y.T - 0.5)) > 0.42
    image = np.where(mat[..., None], linear((226, 221, 210)), image)
    return Surface(np.clip(image, 0.01, 0.9).astype(np.float32), 0.0)


def outside(rng: np.random.Generator, evening: bool) -> Surface:
    """What is seen through a window: sky above trees and houses, slightly out of focus."""
    n = 128
    y = np.linspace(0, 1, n)[:, None, None]
    top, low = ((20, 26, 48), (58, 60, 84)) if evening else ((168, 196, 232), (236, 240, 244))
    image = np.repeat(linear(top) * (1 - y) + linear(low) * y, n, axis=1).astype(np.float32)
    trees = linear((18, 22, 22) if evening else (92, 108, 74))
    skyline = 0.62 + 0.07 * noise(rng, n, 1.1)[0]
    grain = np.exp(0.35 * noise(rng, n, 0.8))[..., None]
    image = np.where(y[..., 0, None] > skyline[None, :, None], trees * grain, image)
    blurred = np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5), np.float32)
    return Surface(blurred, 0.0, glow=0.9 if evening else 1.6, opaque=False)

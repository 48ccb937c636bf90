"""The solids that furniture is made of, and their surfaces as texels of a cube map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mono_depth_ros.sim.texture import Image, Surface

Array = npt.NDArray[np.float64]

# OpenGL cube map: direction of texel (s, t) in -1..1 on the faces +x -x +y -y +z -z.
_FACES = (
    lambda s, t, o: (o, -t, -s),
    lambda s, t, o: (-o, -t, s),
    lambda s, t, o: (s, o, t),
    lambda s, t, o: (s, -o, -t),
    lambda s, t, o: (s, -t, o),
    lambda s, t, o: (-s, -t, -o),
)


@dataclass(frozen=True, eq=False)
class Part:
    """A box, upright cylinder or ellipsoid.

    Attributes:
        shape: "box", "cylinder" or "ellipsoid".
        half: (3,) half extents in metres along the part's own axes.
        centre: (3,) metres, in the room or in the frame of the piece of furniture.
        rotation: (3, 3), that frame from the part's own.
        surface: what it is made of.
    """

    shape: str
    half: Array
    centre: Array
    rotation: Array
    surface: Surface

    def moved(self, x: float, y: float, yaw: float) -> Part:
        """Turned by yaw (radians) about z, then shifted on the floor (metres)."""
        turn = about_z(yaw)
        centre = turn @ self.centre + (x, y, 0.0)
        return replace(self, centre=centre, rotation=turn @ self.rotation)

    def bounds(self) -> Array:
        """(2, 3): smallest and largest corner of the enclosing axis-aligned box."""
        reach = np.abs(self.rotation) @ self.half
        return np.stack([self.centre - reach, self.centre + reach])


def about_z(angle: float) -> Array:
    """Rotation matrix (3, 3) about z, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def about_x(angle: float) -> Array:
    """Rotation matrix (3, 3) about x, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def solid(
    shape: str,
    surface: Surface,
    size: tuple[float, float, float],
    base: tuple[float, float, float],
    yaw: float = 0.0,
    tilt: float = 0.0,
) -> Part:
    """A part of full extents `size` whose untilted bottom centre is `base` (metres, radians)."""
    half = np.array(size) / 2
    centre = np.array([base[0], base[1], base[2] + half[2]])
    return Part(shape, half, centre, about_z(yaw) @ about_x(tilt), surface)


def box(
    surface: Surface,
    size: tuple[float, float, float],
    base: tuple[float, float, float],
    yaw: float = 0.0,
    tilt: float = 0.0,
) -> Part:
    """See `solid`."""
    return solid("box", surface, size, base, yaw, tilt)


def cylinder(
    surface: Surface, diameter: float, height: float, base: tuple[float, float, float]
) -> Part:
    """See `solid`."""
    return solid("cylinder", surface, (diameter, diameter, height), base)


def ellipsoid(
    surface: Surface,
    size: tuple[float, float, float],
    base: tuple[float, float, float],
    yaw: float = 0.0,
) -> Part:
    """See `solid`."""
    return solid("ellipsoid", surface, size, base, yaw)


def face_extent(part: Part, face: int) -> tuple[float, float]:
    """Height and width in metres that the texel rows and columns of a face stretch over."""
    across, up = ((2, 1), (0, 2), (0, 1))[face // 2]
    return 2 * float(part.half[up]), 2 * float(part.half[across])


def texels(part: Part, face: int, h: int, w: int) -> tuple[Array, Array]:
    """Points and outward normals at the centres of h x w texels of one face of the cube map.

    Returns:
        points, normals: (h, w, 3) float64 in the part's own frame, metres.
    """
    axes = [(np.arange(n) + 0.5) / n * 2 - 1 for n in (h, w)]
    t, s = np.meshgrid(*axes, indexing="ij")
    ray = np.stack(_FACES[face](s, t, np.ones_like(s)), -1)
    if part.shape == "box":
        unit, normal = ray, np.where(np.arange(3) == face // 2, ray, 0)
    elif part.shape == "ellipsoid":
        unit = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
        normal = unit
    else:
        radius = np.hypot(ray[..., 0], ray[..., 1])[..., None]
        height = np.abs(ray[..., 2:])
        unit = ray / np.maximum(radius, height)
        normal = np.where(height >= radius, (0, 0, 1), (1, 1, 0)) * unit
    normal = normal / part.half
    return unit * part.half, normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def reflectance(part: Part, n: int, origin: Array) -> Image:
    """The part's surface on its cube map: (6, n, n, 3) float32 linear.

    Args:
        part: the solid.
        n: texels along an edge of each face.
        origin: (2,) where on its tile the surface starts, so that equal parts differ.
    """
    if part.surface.plain:
        return np.broadcast_to(part.surface.tile[0, 0], (6, n, n, 3))
    colour = np.empty((6, n, n, 3), np.float32)
    for face in range(6):
        points, _ = texels(part, face, n, n)
        across, up = ((1, 2), (0, 2), (0, 1))[face // 2]
        u, v = points[..., across], points[..., up]
        if part.surface.tile_m == 0:
            u, v = (1 + u / part.half[across]) / 2, (1 - v / part.half[up]) / 2
            u, v = np.clip(u, 0, 1 - 1e-6), np.clip(v, 0, 1 - 1e-6)
        else:
            if part.shape == "cylinder" and face < 4:
                u = np.arctan2(points[..., 1], points[..., 0]) * part.half[0]
            elif part.half[up] > part.half[across]:
                u, v = v, u  # grain follows the longer edge
            u, v = u / part.surface.tile_m + origin[0], v / part.surface.tile_m + origin[1]
        colour[face] = part.surface.at(u, v)
    return colour

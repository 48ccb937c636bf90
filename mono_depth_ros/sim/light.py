"""Global illumination, computed once: area lights with soft shadows, and diffuse bounces.

The rooms do not move, so their lighting is baked into their textures. A frame then costs one unlit
pass, and furniture still stands in contact shadow on a floor that colours the wall beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_RAYS = 16  # over the hemisphere of each texel
_BOUNCES = 4
_TOUCHING_M = 0.02
_CONTACT_M = 0.35  # nearer surfaces see less light than the mean of their part


@dataclass(frozen=True, eq=False)
class Light:
    """A glowing rectangle, or a glowing ball where `normal` is zero.

    Attributes:
        centre: (3,) metres.
        edges: (2, 3) half edges in metres.
        normal: (3,) unit vector, or zeros.
        power: (3,) linear RGB radiance times area.
    """

    centre: Array
    edges: Array
    normal: Array
    power: Array

    def samples(self) -> Array:
        """(n, 3) points spread over the light."""
        n = 3 if self.normal.any() else 2  # bulbs are small
        grid = (np.arange(n) + 0.5) / n * 2 - 1
        a, b = np.meshgrid(grid, grid)
        offsets = a.reshape(-1, 1) * self.edges[0] + b.reshape(-1, 1) * self.edges[1]
        return np.asarray(self.centre + offsets, np.float64)


def _hemisphere(count: int) -> Array:
    """Cosine-weighted directions about +z on a Fibonacci spiral: (count, 3)."""
    k = np.arange(count)
    r = np.sqrt((k + 0.5) / count)
    angle = k * np.pi * (3 - np.sqrt(5))
    return np.stack([r * np.cos(angle), r * np.sin(angle), np.sqrt(1 - r**2)], -1)


def irradiance(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    points: Array,
    normals: Array,
    geoms: npt.NDArray[np.int64],
    reflectance: Array,
    lights: list[Light],
    rng: np.random.Generator,
) -> Array:
    """Light that arrives at each texel of the scene.

    Args:
        model, data: the scene; geoms of group 0 cast shadows.
        points, normals: (n, 3) float64 texels in the world, metres.
        geoms: (n,) geom that each texel belongs to.
        reflectance: (ngeom, 3) mean linear reflectance of each geom.
        lights: what shines.
        rng: turns the sample pattern of each texel.

    Returns:
        (n, 3) float64 linear RGB irradiance; NaN where another solid touches the texel.
    """
    n = len(points)
    origins = points + 0.003 * normals
    spread = [light.samples() for light in lights]
    counts = [len(samples) for samples in spread]
    sources = np.concatenate(spread)
    facing = np.repeat([light.normal for light in lights], counts, axis=0)
    power = np.repeat([light.power / k for light, k in zip(lights, counts, strict=True)],
                      counts, axis=0)  # fmt: skip

    to_light = sources[None] - origins[:, None]
    reach = np.linalg.norm(to_light, axis=-1)
    to_light /= reach[..., None]
    gain = np.einsum("nkj,nj->nk", to_light, normals).clip(0)
    ball = ~facing.any(-1)
    gain *= np.where(ball, 1.0, -np.einsum("nkj,kj->nk", to_light, facing)).clip(0)
    gain /= np.maximum(reach, 0.4) ** 2

    tangent = np.cross(normals, np.where(np.abs(normals[:, 2:]) < 0.9, (0, 0, 1), (1, 0, 0)))
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    bitangent = np.cross(normals, tangent)
    turn = rng.uniform(0, 2 * np.pi, n)[:, None]
    spiral = _hemisphere(_RAYS)
    c, s = np.cos(turn), np.sin(turn)
    x, y = c * spiral[:, 0] - s * spiral[:, 1], s * spiral[:, 0] + c * spiral[:, 1]
    gather = x[..., None] * tangent[:, None] + y[..., None] * bitangent[:, None]
    gather += spiral[:, 2, None] * normals[:, None]

    hit = np.empty((n, _RAYS), np.int32)
    distance = np.empty((n, _RAYS))
    back = np.empty((n, _RAYS, 3))
    group = np.array([1, 0, 0, 0, 0, 0], np.uint8)
    most = len(sources) + _RAYS
    found, depth, facet = np.empty(most, np.int32), np.empty(most), np.empty(3 * most)
    for i in range(n):
        lit = np.flatnonzero(gain[i] > 1e-4)
        rays = np.concatenate([to_light[i, lit], gather[i]]).ravel()
        m = len(lit) + _RAYS
        mujoco.mj_multiRay(
            model, data, origins[i], rays, group, True, -1, found[:m], depth[:m], facet[: 3 * m],
            m, 1e10,
        )  # fmt: skip
        blocked = (depth[: len(lit)] >= 0) & (depth[: len(lit)] < reach[i, lit] - 0.01)
        gain[i, lit[blocked]] = 0
        hit[i], distance[i] = found[len(lit) : m], depth[len(lit) : m]
        back[i] = facet[3 * len(lit) : 3 * m].reshape(-1, 3)

    # Texels inside or right under another solid are never seen, but would darken what is beside
    # them when the light is enlarged.
    inside = np.einsum("nkj,nkj->nk", back, gather) > 0
    buried = ((hit >= 0) & (inside | (distance < _TOUCHING_M))).mean(1) > 0.5

    direct = gain @ power
    near = 0.35 + 0.65 * np.clip(distance / _CONTACT_M, 0, 1)
    near[hit < 0] = 0
    seen = ~buried
    count = np.maximum(np.bincount(geoms[seen], minlength=model.ngeom), 1)
    total = direct
    for _ in range(_BOUNCES):
        sums = [np.bincount(geoms[seen], total[seen, c], model.ngeom) for c in range(3)]
        radiosity = reflectance * np.stack(sums, -1) / count[:, None]
        total = direct + (radiosity[hit] * near[..., None]).mean(1)
    total[buried] = np.nan
    return np.asarray(total, np.float64)

"""From a plan to a compiled model with the light in its textures."""

from __future__ import annotations

import math

import cv2
import mujoco
import numpy as np
import numpy.typing as npt

from mono_depth_ros.sim import texture
from mono_depth_ros.sim.light import irradiance
from mono_depth_ros.sim.part import face_extent, reflectance, texels
from mono_depth_ros.sim.plan import Plan, Wall
from mono_depth_ros.sim.texture import Image

Array = npt.NDArray[np.float64]

_TEXELS_PER_M = 200
_LUX_PER_M = 9  # light varies more slowly than paint
_SHADOW_M3 = 5e-5  # an eighth of the volume below which a solid (a pen, a thin book) casts none


def unlit() -> mujoco.MjSpec:
    """An empty scene without any light of OpenGL's."""
    spec = mujoco.MjSpec()
    spec.visual.headlight.active = 0
    spec.visual.quality.offsamples = 0  # so that a pixel's depth is that of its centre
    spec.visual.quality.numquads = 1
    spec.visual.quality.shadowsize = 0
    return spec


def add_material(
    spec: mujoco.MjSpec, name: str, pixels: npt.NDArray[np.uint8], repeat: float = 1.0
) -> None:
    """Adds an unlit material: (h, w, 3) on a plane, or (6 n, n, 3) as a cube map."""
    h, w = pixels.shape[:2]
    kind = mujoco.mjtTexture.mjTEXTURE_CUBE if h == 6 * w else mujoco.mjtTexture.mjTEXTURE_2D
    image = spec.add_texture(name=name, type=kind, width=w, height=h, nchannel=3)
    image.data = pixels.tobytes()
    material = spec.add_material(
        name=name, emission=1, specular=0, shininess=0, texrepeat=[repeat, repeat]
    )
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def quaternion(rotation: Array) -> Array:
    """(4,) w x y z of a rotation matrix (3, 3)."""
    wxyz = np.empty(4)
    mujoco.mju_mat2Quat(wxyz, np.ascontiguousarray(rotation, np.float64).ravel())
    return wxyz


def solids(plan: Plan) -> mujoco.MjSpec:
    """The room's geometry without textures: a geom for each wall, then one for each part."""
    spec = unlit()
    for wall in plan.walls:
        u, v = wall.u / np.linalg.norm(wall.u), wall.v / np.linalg.norm(wall.v)
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[np.linalg.norm(wall.u) / 2, np.linalg.norm(wall.v) / 2, 1],
            pos=wall.corner + (wall.u + wall.v) / 2,
            quat=quaternion(np.column_stack([u, v, np.cross(u, v)])),
            contype=0,
            conaffinity=0,
        )
    kinds = {
        "box": mujoco.mjtGeom.mjGEOM_BOX,
        "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
        "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    }
    for part in plan.parts:
        half = part.half if part.shape != "cylinder" else np.array([part.half[0], part.half[2], 0])
        spec.worldbody.add_geom(
            type=kinds[part.shape],
            size=half,
            pos=part.centre,
            quat=quaternion(part.rotation),
            group=0 if part.surface.opaque and part.half.prod() > _SHADOW_M3 else 1,
            contype=0,
            conaffinity=0,
        )
    return spec


def bake(plan: Plan) -> mujoco.MjModel:
    """Compiles the room, lights it, and compiles it again with the light in its textures."""
    rng = np.random.default_rng(plan.seed)
    spec = solids(plan)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)

    colours: list[Image] = []
    points: list[Array] = []
    normals: list[Array] = []
    shapes: list[list[tuple[int, ...]]] = []
    for wall in plan.walls:
        fine, _ = _wall_points(wall, _TEXELS_PER_M)
        span = np.array([np.linalg.norm(wall.u), np.linalg.norm(wall.v)])
        u = (fine - wall.corner) @ (wall.u / span[0]) / wall.surface.tile_m
        v = (fine - wall.corner) @ (wall.v / span[1]) / wall.surface.tile_m
        colours.append(wall.surface.at(u, v))
        coarse, shape = _wall_points(wall, _LUX_PER_M)
        normal = np.cross(wall.u, wall.v)
        points.append(coarse.reshape(-1, 3))
        normals.append(np.broadcast_to(normal / np.linalg.norm(normal), points[-1].shape))
        shapes.append([shape])
    for part in plan.parts:
        longest = 2 * float(part.half.max())
        finest = (16, 32) if part.surface.plain else (256, _TEXELS_PER_M)
        least = (1, 8) if part.shape == "box" else (4, 48)  # no seams on what is round
        n = int(np.clip(longest * finest[1], least[1], max(finest[0], least[1])))
        colours.append(reflectance(part, n, rng.uniform(0, 1, 2)))
        lux = [
            tuple(
                int(np.clip(math.ceil(e * 6 + 0.5), least[0], 12)) for e in face_extent(part, face)
            )
            for face in range(6)
        ]
        if part.shape == "cylinder":
            lux[4:] = [(12, 12), (12, 12)]  # cap and wall share these faces
        grids = [texels(part, face, h, w) for face, (h, w) in enumerate(lux)]
        point, direction = (np.concatenate([g[k].reshape(-1, 3) for g in grids]) for k in (0, 1))
        points.append(point @ part.rotation.T + part.centre)
        normals.append(direction @ part.rotation.T)
        shapes.append(lux)

    counts = [len(p) for p in points]
    geoms = np.repeat(np.arange(len(counts)), counts)
    mean = np.array([colour.reshape(-1, 3).mean(0) for colour in colours], np.float64)
    light = irradiance(
        model, data, np.concatenate(points), np.concatenate(normals), geoms, mean, plan.lights, rng
    )
    light = _expose(light, sum(counts[: len(plan.walls)]))

    for geom, (colour, values) in enumerate(
        zip(colours, np.split(light, np.cumsum(counts)[:-1]), strict=True)
    ):
        ends = np.cumsum([h * w for h, w in shapes[geom]])[:-1]
        seen = values[np.isfinite(values[:, 0])]
        gap = 0.3 * seen.mean(0) if len(seen) else np.zeros(3)
        maps = [
            _enlarge(face.reshape(*shape, 3).astype(np.float32), gap, colour.shape[-3:-1])
            for face, shape in zip(np.split(values, ends), shapes[geom], strict=True)
        ]
        lit = colour * np.concatenate(maps).reshape(colour.shape)
        if geom >= len(plan.walls):
            surface = plan.parts[geom - len(plan.walls)].surface
            if surface.glow:
                lit = colour * surface.glow
            lit = lit.reshape(-1, colour.shape[1], 3)
        add_material(spec, f"skin{geom}", _develop(lit))
        spec.geoms[geom].material = f"skin{geom}"
    return spec.compile()


def _enlarge(light: Image, gap: Array, shape: tuple[int, ...]) -> Image:
    """Light of one face, (h, w, 3) with NaN where it is covered, resized to `shape`.

    A face that is covered all over shows only through gaps, and gets the light `gap` (3,).
    """
    if np.isnan(light).all():
        return np.broadcast_to(gap.astype(np.float32), (*shape, 3))
    seen = np.isfinite(light).astype(np.float32)
    known, light = np.zeros_like(light), np.nan_to_num(light)
    for sigma in (0.6, 1.5, 6.0):  # what is not seen takes the light of what is seen around it
        weight = cv2.GaussianBlur(seen, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        spread = cv2.GaussianBlur(light * seen, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        empty = ~known.any(-1, keepdims=True) & (weight[..., :1] > 1e-3)
        known = np.where(empty, spread / np.maximum(weight, 1e-3), known)
    resized = cv2.resize(known, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def _expose(light: Array, shell: int) -> Array:
    """What a camera's exposure and white balance do: mid-grey walls, most of the cast gone."""
    mean = np.nanmean(light[:shell], 0)
    exposed = light / (mean.mean() * (mean / mean.mean()) ** 0.75) * 0.75
    return np.asarray(exposed, np.float64)


def _develop(radiance: Image) -> npt.NDArray[np.uint8]:
    """A film curve: linear to mid-grey, then a soft shoulder."""
    return texture.srgb(radiance * (1 + radiance * 0.12) / (1 + radiance * 0.55))


def _wall_points(wall: Wall, per_m: float) -> tuple[Array, tuple[int, int]]:
    """Texel centres of a wall: (h, w, 3) metres, and (h, w)."""
    w = math.ceil(np.linalg.norm(wall.u) * per_m)
    h = math.ceil(np.linalg.norm(wall.v) * per_m)
    u = ((np.arange(w) + 0.5) / w)[None, :, None]
    v = 1 - ((np.arange(h) + 0.5) / h)[:, None, None]
    return wall.corner + u * wall.u + v * wall.v, (h, w)

"""Pictures and labels of meshes before a panorama, with moderngl on EGL (Mesa will do)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import moderngl
import numpy as np
import OpenEXR

PAINT = 12  # numbers a vertex has, see Mesh

_VERTEX = """
#version 330
uniform mat4 view_projection;
in vec3 position; in vec3 normal; in vec3 rest; in vec4 paint0; in vec4 paint1; in vec4 paint2;
out vec3 at; out vec3 facing; out vec3 fixed_at;
flat out vec4 pattern; out vec3 one; out vec3 two; out float gloss;
void main() {
  at = position; facing = normal; fixed_at = rest;
  one = paint0.xyz; two = vec3(paint0.w, paint1.xy);
  pattern = vec4(paint1.zw, paint2.xy); gloss = paint2.z;
  gl_Position = view_projection * vec4(position, 1);
}
"""
_NOISE = """
float hash(vec3 p) { p = fract(p * 0.3183099 + 0.1); p *= 17.0;
  return fract(p.x * p.y * p.z * (p.x + p.y + p.z)); }
float noise(vec3 x) { vec3 i = floor(x), f = fract(x); f = f * f * (3.0 - 2.0 * f);
  return mix(mix(mix(hash(i), hash(i + vec3(1,0,0)), f.x),
                 mix(hash(i + vec3(0,1,0)), hash(i + vec3(1,1,0)), f.x), f.y),
             mix(mix(hash(i + vec3(0,0,1)), hash(i + vec3(1,0,1)), f.x),
                 mix(hash(i + vec3(0,1,1)), hash(i + vec3(1,1,1)), f.x), f.y), f.z); }
float fbm(vec3 p) { return 0.5 * noise(p) + 0.3 * noise(p * 2.1) + 0.2 * noise(p * 4.7); }
"""
_FRAGMENT = (
    """
#version 330
uniform vec3 eye; uniform vec3 sh[9]; uniform mat3 to_light; uniform vec3 sun_to;
uniform vec3 sun; uniform float label; uniform vec3 fog; uniform float fog_density;
uniform vec4 blobs[8]; uniform float shadow;
in vec3 at; in vec3 facing; in vec3 fixed_at;
flat in vec4 pattern; in vec3 one; in vec3 two; in float gloss;
layout(location = 0) out vec4 colour; layout(location = 1) out vec4 what;
"""
    + _NOISE
    + """
vec3 sky(vec3 d) { d = to_light * d;
  vec3 s = sh[0] * 0.282095 + 0.488603 * (sh[1] * d.y + sh[2] * d.z + sh[3] * d.x)
    + 1.092548 * (sh[4] * d.x * d.y + sh[5] * d.y * d.z + sh[7] * d.x * d.z)
    + sh[6] * 0.315392 * (3.0 * d.z * d.z - 1.0) + sh[8] * 0.546274 * (d.x * d.x - d.y * d.y);
  return max(s, vec3(0.0)); }
float mask(vec3 p) {
  float kind = pattern.x, f = pattern.y, seed = pattern.w * 61.0;
  vec3 q = p * f;
  if (kind < 0.5) return 0.15 * noise(q * 3.0 + seed);
  if (kind < 1.5) return fbm(q + seed);
  if (kind < 2.5) { float a = pattern.w * 6.2832; // stripes
    return smoothstep(-0.2, 0.2, sin(3.0 * (cos(a) * q.z + sin(a) * (q.x + 0.3 * q.y)))); }
  if (kind < 3.5) { vec3 s = sin(2.0 * q + seed); // checks
    return 0.5 * step(0.0, s.x + 0.3 * s.y) + 0.5 * step(0.0, s.z); }
  if (kind < 4.5) { vec3 s = fract(q) - 0.5; return step(dot(s, s), 0.12); } // dots
  if (kind < 5.5) return step(0.5, noise(q * 0.35 + seed)); // patches
  if (kind < 6.5) { // planks
    vec3 c = floor(q * vec3(1.0, 0.12, 1.0) + 0.5 * hash(vec3(floor(q.x))));
    return 0.6 * hash(c + seed) + 0.4 * fbm(q * vec3(6.0, 0.6, 6.0)); }
  vec3 s = fract(q + vec3(0.5 * mod(floor(q.z), 2.0), 0.0, 0.0)); // tiles and bricks
  float joint = min(min(min(s.x, 1.0 - s.x), min(s.z, 1.0 - s.z)), min(s.y, 1.0 - s.y));
  return 0.3 * hash(floor(q) + seed) + 0.7 * step(joint, 0.05);
}
void main() {
  vec3 n = normalize(facing), view = normalize(eye - at);
  if (dot(n, view) < 0.0) n = -n;
  vec3 albedo = mix(one, two, pattern.z * mask(fixed_at));
  float dark = 1.0;
  for (int i = 0; i < 8; i++) { vec3 d = at - blobs[i].xyz;
    d.z *= 0.5;
    dark *= 1.0 - step(0.001, blobs[i].w) * shadow * exp(-dot(d, d) / max(blobs[i].w, 1e-4)); }
  vec3 light = sky(n) * dark + sun * max(dot(n, sun_to), 0.0) * dark * dark;
  vec3 h = normalize(view + sun_to);
  float fresnel = pow(1.0 - max(dot(n, view), 0.0), 5.0);
  vec3 shine = gloss * (sun * pow(max(dot(n, h), 0.0), 24.0) * 0.5
    + sky(reflect(-view, n)) * (0.05 + 0.4 * fresnel));
  vec3 c = albedo * light + shine;
  c = mix(fog, c, exp(-fog_density * length(eye - at)));
  colour = vec4(c, 1); what = vec4(label, 0, 0, 1);
}
"""
)
_SKY_VERTEX = """
#version 330
in vec2 corner; uniform vec3 right; uniform vec3 up; uniform vec3 forward; out vec3 ray;
void main() { ray = forward + corner.x * right + corner.y * up;
  gl_Position = vec4(corner, 0.9999, 1); }
"""
_SKY_FRAGMENT = (
    """
#version 330
uniform sampler2D panorama; uniform mat3 to_light; uniform float detail; uniform float seed;
uniform float gain;
in vec3 ray; layout(location = 0) out vec4 colour; layout(location = 1) out vec4 what;
"""
    + _NOISE
    + """
void main() {
  vec3 d = normalize(to_light * ray);
  vec2 uv = vec2(atan(d.y, d.x) / 6.2831853 + 0.5, 0.5 - asin(clamp(d.z, -1.0, 1.0)) / 3.14159265);
  vec3 c = textureLod(panorama, uv, 0.0).rgb;
  c *= 1.0 + detail * (fbm(d * 40.0 + seed) + fbm(d * 130.0 + seed) - 1.0);
  colour = vec4(c * gain, 1); what = vec4(0, 0, 0, 1);
}
"""
)


@dataclass(frozen=True)
class Panorama:
    """A picture of all directions (z up) and its light as spherical harmonics."""

    pixels: np.ndarray  # [H, W, 3] float32, linear
    harmonics: np.ndarray  # [9, 3] irradiance over pi
    sun_to: np.ndarray  # [3] where most light comes from
    sun: np.ndarray  # [3] colour


def read_panorama(path: Path) -> Panorama:
    """Read an OpenEXR file with equal angles and sum up its light."""
    with OpenEXR.File(str(path)) as file:
        channels = file.channels()
        pixels = np.array(channels[next(c for c in ("RGB", "RGBA") if c in channels)].pixels)
    pixels = pixels[..., :3].astype(np.float32)
    step = max(1, pixels.shape[1] // 1024)
    return light_of(np.clip(pixels[::step, ::step], 0, 100))


def light_of(pixels: np.ndarray) -> Panorama:
    """The light of a panorama [H, W, 3].

    Source: Ramamoorthi and Hanrahan, An Efficient Representation for Irradiance Environment Maps,
    SIGGRAPH 2001, equations 3 to 13.
    """
    height, width = pixels.shape[:2]
    elevation = np.pi * (0.5 - (np.arange(height) + 0.5) / height)
    azimuth = 2 * np.pi * ((np.arange(width) + 0.5) / width - 0.5)
    z = np.sin(elevation)[:, None].repeat(width, 1)
    x = np.cos(elevation)[:, None] * np.cos(azimuth)
    y = np.cos(elevation)[:, None] * np.sin(azimuth)
    area = np.cos(elevation)[:, None] * (np.pi / height) * (2 * np.pi / width)
    basis = [
        np.full_like(x, 0.282095),
        0.488603 * y,
        0.488603 * z,
        0.488603 * x,
        1.092548 * x * y,
        1.092548 * y * z,
        0.315392 * (3 * z * z - 1),
        1.092548 * x * z,
        0.546274 * (x * x - y * y),
    ]
    cosine = [np.pi] + [2 * np.pi / 3] * 3 + [np.pi / 4] * 5
    soft = np.minimum(pixels, 8)
    harmonics = np.stack(
        [
            (soft * (b * area)[..., None]).sum((0, 1)) * a / np.pi
            for b, a in zip(basis, cosine, strict=True)
        ]
    )
    weight = (pixels.max(-1) ** 2 * area)[..., None]
    toward = (weight * np.stack([x, y, z], -1)).sum((0, 1))
    toward /= max(np.linalg.norm(toward), 1e-9)
    colour = (pixels * (pixels.max(-1, keepdims=True) > 4) * area[..., None]).sum((0, 1)) / np.pi
    return Panorama(pixels, harmonics, toward, np.clip(colour, 0, 3))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        eye: where it is, in metres.
        rotation: rows are right, up and backward in the world.
        focal: focal length in half heights of the picture.
        centre: where the axis meets the picture, in half heights right and up of its middle.
    """

    eye: np.ndarray
    rotation: np.ndarray
    focal: float
    centre: tuple[float, float]

    def project(self, points: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [..., 2] (x right, y down) and depths [...] in metres."""
        seen = (points - self.eye) @ self.rotation.T
        depth = -seen[..., 2]
        safe = np.where(np.abs(depth) < 1e-3, 1e-3, depth)
        x = (self.focal * seen[..., 0] / safe + self.centre[0]) * height / 2 + width / 2
        y = height / 2 - (self.focal * seen[..., 1] / safe + self.centre[1]) * height / 2
        return np.stack([x, y], -1), depth

    def matrix(self, aspect: float, near: float = 0.05, far: float = 200.0) -> np.ndarray:
        view = np.eye(4)
        view[:3, :3] = self.rotation
        view[:3, 3] = -self.rotation @ self.eye
        projection = np.zeros((4, 4))
        projection[0, 0] = self.focal / aspect
        projection[0, 2] = -self.centre[0] / aspect
        projection[1, 1] = self.focal
        projection[1, 2] = -self.centre[1]
        projection[2, 2] = (far + near) / (near - far)
        projection[2, 3] = 2 * far * near / (near - far)
        projection[3, 2] = -1
        return projection @ view


@dataclass
class Mesh:
    """Triangles with their paint; ``paint`` is as in ``body.Person``."""

    rest: np.ndarray
    faces: np.ndarray
    paint: np.ndarray
    label: int  # 0 for what is no person
    inside: bool = False  # seen from inside only


class Renderer:
    """Draws meshes into a colour and a label picture of one size.

    Args:
        width, height: in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.context = moderngl.create_standalone_context(backend="egl")
        self.program = self.context.program(_VERTEX, _FRAGMENT)
        self.sky = self.context.program(_SKY_VERTEX, _SKY_FRAGMENT)
        corners = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]], "f4")
        self.quad = self.context.vertex_array(
            self.sky, [(self.context.buffer(corners), "2f", "corner")]
        )
        size = (width, height)
        self.target = self.context.framebuffer(
            [self.context.texture(size, 4, dtype="f2"), self.context.texture(size, 1)],
            self.context.depth_renderbuffer(size),
        )
        self.arrays: list[tuple] = []
        self.panorama: moderngl.Texture | None = None

    def load(self, meshes: list[Mesh], panorama: Panorama) -> None:
        """What the next clip shows; frees what the last one did."""
        for array, moving, still, index, _ in self.arrays:
            for thing in (array, moving, still, index):
                thing.release()
        if self.panorama is not None:
            self.panorama.release()
        height, width = panorama.pixels.shape[:2]
        self.panorama = self.context.texture(
            (width, height), 3, panorama.pixels.astype("f4").tobytes(), dtype="f4"
        )
        self.panorama.filter = (moderngl.LINEAR, moderngl.LINEAR)
        self.panorama.repeat_y = False
        self.arrays = []
        for mesh in meshes:
            still = np.concatenate([mesh.rest, mesh.paint], 1).astype("f4")
            moving = self.context.buffer(reserve=len(mesh.rest) * 24, dynamic=True)
            fixed = self.context.buffer(still.tobytes())
            index = self.context.buffer(mesh.faces.astype("i4").tobytes())
            array = self.context.vertex_array(
                self.program,
                [
                    (moving, "3f 3f", "position", "normal"),
                    (fixed, "3f 4f 4f 4f", "rest", "paint0", "paint1", "paint2"),
                ],
                index,
            )
            self.arrays.append((array, moving, fixed, index, mesh))

    def place(self, number: int, vertices: np.ndarray, normals: np.ndarray) -> None:
        """Move a mesh."""
        self.arrays[number][1].write(np.concatenate([vertices, normals], 1).astype("f4").tobytes())

    def draw(self, camera: Camera, light: dict[str, object]) -> tuple[np.ndarray, np.ndarray]:
        """Linear colours [H, W, 3] and labels [H, W]."""
        aspect = self.width / self.height
        self.target.use()
        self.target.clear(depth=1.0)
        self.context.disable(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        right, up, back = camera.rotation
        assert self.panorama is not None
        self.panorama.use()
        middle = (
            -back - right * camera.centre[0] / camera.focal - up * camera.centre[1] / camera.focal
        )
        turned = np.asarray(light["to_light"], "f4").T.tobytes()  # column-major
        _set(
            self.sky,
            right=tuple(right * aspect / camera.focal),
            up=tuple(up / camera.focal),
            forward=tuple(middle),
            detail=light["detail"],
            seed=light["seed"],
            gain=light["gain"],
        )
        self.sky["to_light"].write(turned)
        self.quad.render(moderngl.TRIANGLE_STRIP)
        self.context.enable(moderngl.DEPTH_TEST)
        program = self.program
        program["view_projection"].write(camera.matrix(aspect).T.astype("f4").tobytes())
        program["to_light"].write(turned)
        program["sh"].write((np.asarray(light["harmonics"]) * light["gain"]).astype("f4").tobytes())
        program["blobs"].write(np.asarray(light["blobs"], "f4").tobytes())
        _set(
            program,
            eye=tuple(camera.eye),
            sun_to=tuple(light["sun_to"]),
            sun=tuple(light["sun"]),
            fog=tuple(light["fog"]),
            fog_density=light["fog_density"],
            shadow=light["shadow"],
        )
        for array, *_, mesh in self.arrays:
            program["label"].value = mesh.label / 255
            if mesh.inside:
                self.context.enable(moderngl.CULL_FACE)
            array.render()
            self.context.disable(moderngl.CULL_FACE)
        shape = (self.height, self.width)
        colour = np.frombuffer(self.target.read(components=3, dtype="f2", alignment=1), "f2")
        label = np.frombuffer(self.target.read(components=1, attachment=1, alignment=1), np.uint8)
        return (
            np.nan_to_num(colour.reshape(*shape, 3)[::-1].astype(np.float32), nan=0, posinf=6e4),
            label.reshape(shape)[::-1].copy(),
        )


def _set(program: moderngl.Program, **values: object) -> None:
    for name, value in values.items():
        if name in program:
            program[name].value = value

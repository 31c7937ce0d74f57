"""Joint limits: what people can take, the BSM model's, none, or a table of one's own.

`HUMAN_LIMITS` is the passive range of flexible people (children, dancers, gymnasts, yoga), so that a fit ends at a
limit where no human would go and nowhere else. Degrees of the right side; the left one has the same by symmetry, zero
is inside, and the BSM model's range is as well. Zero is the T-pose with palms down, hence shoulder, forearm and
scapula count from there. The skin does not follow the bones exactly and goniometers err by 5 degrees, so published
ends are exceeded by 5 to 15 degrees.

    hip flexion -90, 165       flexion 140.8 in girls (Soucie et al. 2011), more with the thigh beside the trunk (a foot
                               behind the head); the hind leg of a front split lies along the floor: 90 of extension
    hip adduction -120, 90     abduction 90 is a side split (Charbonnier et al. 2011: dancers' hips in splits), gymnasts
                               go beyond the line of both legs; with the thigh flexed by 90 this angle turns the
                               thigh about itself: rotation outward 90 (lotus), inward 60
    hip rotation -150, 120     47 each way (Boone and Azen 1979), 60 to 70 in dancers (Hamilton et al. 1992); with the
                               thigh flexed by 90 this angle swings it sideways by 90 (straddle), and both add up
    knee -15, 170              hyperextension beyond 10 is hypermobility (Beighton et al. 1973); flexion 152.6 in girls
                               (Soucie et al. 2011), 157 in a squat (Hemmerich et al. 2006), 165 with the heel at the
                               buttock (Mulholland and Wyss 2001)
    ankle -90, 55              plantar flexion 67 in girls (Soucie et al. 2011), with the foot's own joints about 90 in
                               dancers (Russell et al. 2011); dorsiflexion 38 in a squat (Hemmerich et al. 2006)
    subtalar +-60              inversion 37, eversion 21 (Boone and Azen 1979); its oblique axis also takes the shank's
                               rotation against the foot
    mtp -100, 60               extension 70, flexion 45 (AAOS, Greene and Heckman 1994); 90 of extension in demi-pointe
    lumbar, thorax             trunk flexion 80, extension 25, bending 35, rotation 45 (AAOS); both joints share what is
                               the whole spine's below the neck, as the skin cannot tell where it bends, and
                               back bends of gymnasts are some 150 together: flexion 80 and 100, extension 60 and 90,
                               bending 50 and 60, twist 60 and 60
    head bending +-70          50 each way (Dvorak et al. 1992, passive), and the upper thorax
    head extension -95, 90     153 in all (Dvorak et al. 1992), extension alone 86 in adolescents (Youdas et al. 1992);
                               SKEL bends the neck in one place, by more forward and by less backward
    head twist +-105           92 each way, standard deviation 6 (Dvorak et al. 1992, passive)
    scapula abduction +-50     protraction and retraction of the clavicle, 30 each (Inman et al. 1944, Ludewig et al.
                               2009)
    scapula elevation -55, 30  clavicle: up 45, down 10 (Inman et al. 1944); up is negative on the right
    scapula upward rot -40, 70 upward by 50 to 60 (Inman et al. 1944, McClure et al. 2001, Ludewig et al. 2009), counted
                               from the T-pose, so that hanging arms take back some 30
    shoulder x, z +-225, y     any direction of the arm (Boone and Azen 1979: 184 of abduction, 167 of flexion, 62 of
      +-135                    extension, rotation 69 inward, 104 outward) is human with some rotation about itself, and
                               in these angles the ways there go round the pole where an arm hangs, so no box but the
                               whole turn holds them; the margin lets the fit pass the ends
    elbow -20, 165             hyperextension beyond 10 is hypermobility (Beighton et al. 1973); flexion 152.9 in girls
                               (Soucie et al. 2011)
    pro_sup +-115              84.6 and 93.7 in girls (Soucie et al. 2011), and 20 in the wrist (SMPL turns all there)
    wrist flexion +-100        76 and 75 (Boone and Azen 1979), 90 in hypermobile hands (Beighton et al. 1973)
    wrist deviation +-60       ulnar 36, radial 21 (Boone and Azen 1979); SMPL's zero lies between

AAOS: American Academy of Orthopaedic Surgeons, in Greene and Heckman, The Clinical Measurement of Joint Motion, 1994.
Beighton, Solomon and Soskolne, Ann Rheum Dis 32, 1973. Boone and Azen, J Bone Joint Surg Am 61, 1979. Charbonnier et
al., Am J Sports Med 39, 2011. Dvorak et al., Spine 17, 1992. Hamilton et al., Am J Sports Med 20, 1992. Hemmerich et
al., J Orthop Res 24, 2006. Inman, Saunders and Abbott, J Bone Joint Surg 26, 1944. Ludewig et al., J Bone Joint Surg Am
91, 2009. McClure et al., J Shoulder Elbow Surg 10, 2001. Mulholland and Wyss, Int J Rehabil Res 24, 2001. Russell et
al., Foot Ankle Int 32, 2011. Soucie et al., Haemophilia 17, 2011. Youdas et al., Phys Ther 72, 1992.
"""

from __future__ import annotations

import csv
import difflib
import math
import os
from pathlib import Path

import numpy as np

from fitting.anatomy import COORDINATE_NAMES, COORDINATES
from fitting.body.kinematics import ROOT_COORDINATES
from fitting.body.mirror import COUNTERPART, MIRROR_SIGN
from schemas import InputError

_HUMAN_DEGREES = {
    "hip_flexion_r": (-90, 165),
    "hip_adduction_r": (-120, 90),
    "hip_rotation_r": (-150, 120),
    "knee_angle_r": (-15, 170),
    "ankle_angle_r": (-90, 55),
    "subtalar_angle_r": (-60, 60),
    "mtp_angle_r": (-100, 60),
    "lumbar_bending": (-50, 50),
    "lumbar_extension": (-80, 60),
    "lumbar_twist": (-60, 60),
    "thorax_bending": (-60, 60),
    "thorax_extension": (-100, 90),
    "thorax_twist": (-60, 60),
    "head_bending": (-70, 70),
    "head_extension": (-95, 90),
    "head_twist": (-105, 105),
    "scapula_abduction_r": (-50, 50),
    "scapula_elevation_r": (-55, 30),
    "scapula_upward_rot_r": (-40, 70),
    "shoulder_r_x": (-225, 225),
    "shoulder_r_y": (-135, 135),
    "shoulder_r_z": (-225, 225),
    "elbow_flexion_r": (-20, 165),
    "pro_sup_r": (-115, 115),
    "wrist_flexion_r": (-100, 100),
    "wrist_deviation_r": (-60, 60),
}
"""Of the right side and the trunk, see above."""


def _none() -> np.ndarray:
    return np.full((COORDINATES, 2), np.inf) * [-1, 1]


def _human() -> np.ndarray:
    table = _none()
    for name, limits in _HUMAN_DEGREES.items():
        coordinate = COORDINATE_NAMES.index(name)
        table[coordinate] = np.radians(limits)
        other = COUNTERPART[coordinate]
        if other != coordinate:
            table[other] = np.sort(MIRROR_SIGN[other] * table[coordinate])
    return table


def _bsm() -> np.ndarray:
    quarter, half = math.pi / 4, math.pi / 2
    table = _none()
    for side in (3, 10):
        table[side] = (-quarter, 3 * quarter)
        table[side + 1] = (-quarter, math.pi / 6)
        table[side + 2] = (-quarter, quarter)
        table[side + 3] = (0, 3 * quarter)
        table[side + 4 : side + 7] = (-quarter, quarter)
    table[17:26] = (-quarter, quarter)
    table[17] = (-math.pi / 6, math.pi / 6)
    for side in (26, 36):
        table[side] = (-0.628, 0.628)
        table[side + 1] = (-0.4, -0.1)
        table[side + 4 : side + 6] = (-half, half)
        table[side + 6] = (0, 3 * quarter)
        table[side + 8] = (-half, half)
        table[side + 9] = (-quarter, quarter)
    table[28], table[38] = (-0.19, 0.319), (-0.21, 0.219)
    table[29], table[39] = (-half, half + 1.5), (-half - 1.5, half)
    table[33], table[43] = (-1.5 * quarter, 1.5 * quarter), (-half, half)
    return table


HUMAN_LIMITS = _human()
"""(46, 2) lower and upper limit, rad; the root has none."""

BSM_LIMITS = _bsm()
"""(46, 2) rad, of the BSM model as the field uses them. Cuts poses that humans take, zero (the T-pose) among them."""

LIMITS = {"human": HUMAN_LIMITS, "bsm": BSM_LIMITS, "none": _none()}
"""Tables by name."""

_HEADER = ["coordinate", "low", "high"]
_LONGEST = 1 << 20
"""Bytes; a table of 43 rows needs a thousandth."""


def read_limits(source: str | Path) -> np.ndarray:
    """(46, 2) lower and upper limits in rad: `human`, `bsm`, `none`, or a CSV file coordinate,low,high in degrees.

    Coordinates are named as in `fitting.anatomy`. One that a file does not list keeps its human limits, an empty
    number is no limit. Raises InputError, with the row, for anything else.
    """
    if str(source) in LIMITS:
        return LIMITS[str(source)].copy()
    path, table = Path(source), HUMAN_LIMITS.copy()
    if not os.path.isfile(path):
        expected = f"{', '.join(LIMITS)} or a CSV file"
        raise InputError(f"{str(source)!r} is neither a name nor a file", field="limits", expected=expected)
    for number, name, low, high in _rows(path):
        if name not in COORDINATE_NAMES[ROOT_COORDINATES.stop :]:
            close = difflib.get_close_matches(name, COORDINATE_NAMES, n=1)
            expected = close[0] if close else f"one of {', '.join(COORDINATE_NAMES[ROOT_COORDINATES.stop :])}"
            raise InputError(f"{name!r} is no coordinate", file=path, row=number, field="coordinate", expected=expected)
        limits = [
            _radians(text, none, path, number, field)
            for text, none, field in ((low, -math.inf, "low"), (high, math.inf, "high"))
        ]
        if limits[0] >= limits[1]:
            raise InputError(f"{low} to {high}", file=path, row=number, field=name, expected="low below high")
        table[COORDINATE_NAMES.index(name)] = limits
    return table


def _rows(path: Path) -> list[tuple[int, str, str, str]]:
    try:
        if path.stat().st_size > _LONGEST:
            raise InputError("too long for a table of joint limits", file=path)
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a CSV file: {error}", file=path) from error
    if not rows or [name.strip().lower() for name in rows[0]] != _HEADER:
        raise InputError("no such header", file=path, row=1, expected=",".join(_HEADER))
    found = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(_HEADER):
            raise InputError(f"{len(row)} columns", file=path, row=number, expected=",".join(_HEADER))
        found.append((number, *(text.strip() for text in row)))
    return found


def _radians(text: str, if_empty: float, path: str | Path, row: int, field: str) -> float:
    if not text:
        return if_empty
    try:
        value = math.radians(float(text))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{text!r} given", file=path, row=row, field=field, expected="degrees, or nothing")
    return value

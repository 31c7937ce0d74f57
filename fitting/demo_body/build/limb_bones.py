# ruff: noqa: RUF005  (adding a list to a vector is vector addition here)
"""Left leg, arm and shoulder girdle of the bone mesh (build time only)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fitting.demo_body.build.bone_parts import COVER, Part, SkinDepth, shaft
from fitting.demo_body.build.solids import ball, plate, rod, surface, union


def leg(at: dict, heads: dict, index: dict) -> list[Part]:
    """Left femur to toes. at: joint centres; heads: Anny's bone heads; index: joint numbers, all by name."""
    hip, knee, ankle, heel = (at[f"{n}_l"] for n in ("femur", "tibia", "talus", "calcn"))
    femur, tibia, talus, calcn, toes = (index[f"{n}_l"] for n in ("femur", "tibia", "talus", "calcn", "toes"))
    parts = [
        Part(ball(hip, 0.0235, 6, 10), femur),
        Part(shaft([hip, hip + [0.022, -0.012, -0.002], hip + [0.04, -0.03, -0.006]], [0.016, 0.013, 0.017], 4), femur),
        Part(ball(hip + [0.047, -0.02, -0.01], (0.012, 0.02, 0.014)), femur),
        Part(
            shaft(
                [
                    hip + [0.042, -0.022, -0.008],
                    hip + [0.042, -0.07, -0.004],
                    (hip + knee) / 2 + [0.014, 0, 0.014],
                    knee + [0.003, 0.07, 0.008],
                    knee + [0, 0.024, 0.001],
                    knee + [0, 0.006, 0],
                ],
                [0.017, 0.0165, 0.0135, 0.0165, 0.029, 0.026],
                13,
                10,
            ),
            femur,
        ),
        Part(ball(knee + [0.02, 0.004, -0.002], (0.0155, 0.021, 0.027)), femur),
        Part(ball(knee + [-0.021, 0.003, -0.002], (0.0155, 0.021, 0.028)), femur),
    ]
    patella = ball(knee + [0.001, 0.004, 0.036], (0.018, 0.02, 0.009))
    parts.append(Part(patella, tibia, femur, np.full(len(patella[0]), 0.5)))
    parts += [
        Part(
            shaft(
                [
                    knee + [0, -0.02, -0.002],
                    knee + [0, -0.045, 0.0],
                    knee + [-0.004, -0.11, 0.006],
                    (knee + ankle) / 2 + [-0.004, -0.02, 0.008],
                    ankle + [-0.003, 0.07, 0.003],
                    ankle + [-0.003, 0.018, 0],
                ],
                [0.034, 0.026, 0.0155, 0.0125, 0.0125, 0.02],
                12,
                10,
            ),
            tibia,
        ),
        Part(ball(ankle + [-0.024, 0.002, 0.002], (0.008, 0.014, 0.01)), tibia),
        Part(
            shaft(
                [
                    knee + [0.033, -0.034, -0.018],
                    knee + [0.03, -0.08, -0.016],
                    (knee + ankle) / 2 + [0.022, 0, -0.012],
                    ankle + [0.022, 0.06, -0.006],
                    ankle + [0.025, -0.008, -0.004],
                ],
                [0.011, 0.0065, 0.006, 0.0065, 0.0095],
                10,
                7,
            ),
            tibia,
        ),
        Part(ball(ankle + [0, -0.008, 0.006], (0.018, 0.015, 0.025)), talus),
        Part(ball(ankle + [-0.004, -0.018, 0.03], (0.014, 0.012, 0.014)), talus),
    ]
    sole = ankle[1] - 0.062
    parts.append(
        Part(
            shaft(
                [
                    [heel[0] - 0.001, sole + 0.02, heel[2] - 0.016],
                    [heel[0], sole + 0.025, heel[2] + 0.005],
                    [heel[0], sole + 0.028, heel[2] + 0.032],
                    [heel[0] + 0.007, sole + 0.026, heel[2] + 0.06],
                ],
                [0.013, 0.021, 0.018, 0.012],
                7,
            ),
            calcn,
        )
    )
    middle = heads["toe2-1"] * 0.38 + ankle * 0.62
    for dx, dy, dz, r in (
        (-0.011, 0.002, -0.005, 0.0145),
        (-0.019, 0.001, 0.017, 0.012),
        (-0.004, 0.004, 0.017, 0.0105),
        (0.009, 0.002, 0.015, 0.0105),
        (0.02, -0.008, 0.001, 0.0145),
    ):
        parts.append(Part(ball(middle + [dx, dy, dz], (r, r, 1.1 * r), 4, 7), calcn))
    for k in range(1, 6):
        knuckle = heads[f"toe{k}-1"]
        base = middle + [(-0.02, -0.008, 0.003, 0.014, 0.023)[k - 1], (0, 0.001, 0, -0.004, -0.008)[k - 1], 0.027]
        thick = 0.0085 if k == 1 else 0.0055
        start = knuckle - [0, 0.001, 0.014 if k == 1 else 0.012]
        parts.append(
            Part(
                shaft(
                    [base, (base + start) / 2 + [0, 0.002, 0], start], [1.15 * thick, 0.75 * thick, 1.2 * thick], 5, 7
                ),
                calcn,
            )
        )
        chain = [heads[f"toe{k}-{m}"] for m in (1, 2, 3) if f"toe{k}-{m}" in heads]
        chain[0] = chain[0] - [0, 0.001, 0.006]
        chain.append(chain[-1] + 0.8 * (chain[-1] - chain[-2]) * (1.0 if k > 1 else 0.8))
        for a, b in pairwise(chain):
            r = 0.0068 if k == 1 else 0.0042
            parts.append(
                Part(shaft([a + 0.08 * (b - a), (a + b) / 2, b - 0.08 * (b - a)], [r, 0.7 * r, 0.9 * r], 3, 6), toes)
            )
    return parts


def arm(at: dict, heads: dict, index: dict, skin: SkinDepth) -> list[Part]:
    """Left humerus to fingers."""
    shoulder, elbow, radius, wrist = (at[f"{n}_l"] for n in ("humerus", "ulna", "radius", "hand"))
    humerus_i, ulna_i, radius_i, hand_i = (index[f"{n}_l"] for n in ("humerus", "ulna", "radius", "hand"))
    parts = [
        Part(ball(shoulder + [-0.003, 0.002, 0], 0.0225, 6, 10), humerus_i),
        Part(ball(shoulder + [0.014, 0.01, 0.003], (0.012, 0.012, 0.014)), humerus_i),
        Part(
            shaft(
                [
                    shoulder + [0.006, 0, 0],
                    shoulder + [0.04, 0, 0.001],
                    (shoulder + elbow) / 2,
                    elbow + [-0.05, 0.002, 0.001],
                    elbow + [-0.016, 0.003, 0.002],
                ],
                [0.019, 0.0135, 0.0105, 0.0115, 0.014],
                10,
                9,
            ),
            humerus_i,
        ),
        Part(
            shaft(
                [
                    elbow + [-0.012, -0.024, 0.0],
                    elbow + [-0.004, -0.008, 0.003],
                    elbow + [-0.002, 0.01, 0.004],
                    elbow + [-0.006, 0.025, 0.002],
                ],
                [0.007, 0.011, 0.0115, 0.008],
                6,
            ),
            humerus_i,
        ),
        Part(
            shaft(
                [
                    elbow + [-0.01, -0.002, -0.016],
                    elbow + [0.012, -0.004, -0.01],
                    elbow + [0.05, -0.006, -0.006],
                    (elbow + wrist) / 2 + [0, -0.003, -0.013],
                    wrist + [-0.03, 0.0, -0.017],
                    wrist + [-0.008, 0.001, -0.018],
                ],
                [0.01, 0.0125, 0.009, 0.007, 0.006, 0.008],
                11,
                8,
            ),
            ulna_i,
        ),
        Part(
            shaft(
                [
                    radius + [-0.006, -0.003, 0.003],
                    radius + [0.006, -0.003, 0.003],
                    radius + [0.02, -0.005, 0.004],
                    radius * 0.5 + wrist * 0.5 + [0, 0.0, 0.014],
                    wrist + [-0.04, 0.001, 0.01],
                    wrist + [-0.007, 0.0, 0.007],
                ],
                [0.0115, 0.011, 0.0075, 0.0075, 0.0095, 0.0145],
                12,
                8,
                flat=0.8,
                up=(0, 1, 0),
            ),
            radius_i,
        ),
    ]
    palm = wrist * 0.8 + (heads["finger3-1"]) * 0.2
    for dx, dz in (
        (-0.009, -0.017),
        (-0.011, -0.004),
        (-0.01, 0.01),
        (-0.003, 0.02),
        (0.006, -0.015),
        (0.006, -0.003),
        (0.007, 0.008),
        (0.008, 0.018),
    ):
        parts.append(Part(ball(palm + [dx, -0.001, dz - 0.003], (0.0075, 0.007, 0.0072), 3, 6), hand_i))
    for k in range(1, 6):
        knuckle = heads[f"finger{k}-1"]
        chain = [heads[f"finger{k}-{m}"] for m in (1, 2, 3)]
        tip = chain[2] + (chain[2] - chain[1]) * (0.72 if k > 1 else 0.62)
        tip = skin.covered(tip[None], 0.0065)[0]
        if k > 1:
            base = palm + [0.017, -0.001, (0, 0, 0.014, 0.003, -0.007, -0.016)[k]]
            parts.append(
                Part(
                    shaft(
                        [base, (base + knuckle) / 2 + [0, 0.001, 0], knuckle - [0.006, 0, 0]],
                        [0.007, 0.0042, 0.007],
                        5,
                        6,
                    ),
                    hand_i,
                )
            )
        else:
            chain[0] = chain[0] * 0.8 + palm * 0.2
        for (a, b), r in zip(zip(chain, [*chain[1:], tip], strict=True), (0.0058, 0.005, 0.0042), strict=True):
            parts.append(
                Part(shaft([a + 0.08 * (b - a), (a + b) / 2, b - 0.08 * (b - a)], [r, 0.68 * r, 0.9 * r], 4, 6), hand_i)
            )
    return parts


def scapula(at: dict, index: dict, skin: SkinDepth) -> list[Part]:
    """Left scapula, and the clavicle between thorax and scapula."""
    gh, ac = at["humerus_l"], at["scapula_l"]
    socket = gh + [-0.031, 0.0, -0.006]
    upper, lower = np.array([0.07, ac[1] - 0.022, -0.046]), np.array([0.082, ac[1] - 0.152, -0.058])
    edge = np.array([0.066, ac[1] - 0.055, -0.052])
    blade = union(
        [
            plate(upper, edge, socket, 0.0055),
            plate(edge, lower, socket, 0.0055),
            rod(
                [
                    edge + [0.004, 0.004, -0.006],
                    (edge + ac) / 2 + [0, 0.004, -0.014],
                    ac + [0.006, 0.006, -0.012],
                    ac + [0.022, 0.008, 0.008],
                ],
                [0.005, 0.007, 0.0075, 0.008],
            ),
            rod([socket, socket + [-0.012, 0.0, -0.004]], [0.0135, 0.009]),
            rod(
                [socket + [-0.014, 0.012, 0.006], socket + [-0.012, 0.022, 0.024], socket + [0.004, 0.012, 0.034]],
                [0.006, 0.006, 0.005],
            ),
        ],
        0.008,
    )
    cover = skin.under(COVER)
    mesh = surface(lambda p: np.maximum(blade(p), cover(p)), lower - 0.03, ac + [0.06, 0.04, 0.07], 0.0072)
    thorax_i, scapula_i = index["thorax"], index["scapula_l"]
    clavicle = shaft(
        [
            [0.016, ac[1] - 0.025, 0.054],
            [0.05, ac[1] - 0.01, 0.056],
            [0.1, ac[1] + 0.003, 0.03],
            ac + [0.002, 0.008, 0.003],
        ],
        [0.0105, 0.0065, 0.006, 0.0085],
        9,
        7,
    )
    share = np.clip((clavicle[0][:, 0] - 0.016) / (ac[0] - 0.016), 0, 1)
    return [Part(mesh, scapula_i), Part(clavicle, thorax_i, scapula_i, share)]

"""Whether everything that benchmarks need is there, before hours are spent on the first of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from train.benchmarks.known import Opened
from train.evaluate.bodies import EvaluationBodies
from train.evaluate.measure import true_genders
from train.evaluate.protocols import Protocol

log = logging.getLogger(__name__)


def check_ready(opened: Opened, protocols: Iterable[Protocol], bodies: EvaluationBodies, images: bool) -> None:
    """Raises InputError for the first regressor or body model that a protocol lacks and, if `images` are looked at, for
    the first image that is not there. Logs how many people lack points that are compared all the same."""
    people = opened.people
    for rules in protocols:
        compares_meshes = rules.chosen and rules.points != "keypoints"
        bodies.require(rules, np.unique(true_genders(people.gender, rules)) if compares_meshes else ())
        if rules.points == "keypoints" and rules.chosen and not rules.confidence:
            compared = people.keypoints_3d[:, sorted({*rules.chosen, *rules.root}), 3]
            without = np.flatnonzero((compared <= 0).any(1))
            if len(without):
                said = "%s: %d of %d people, row %d the first, lack some of the 3D keypoints, which count all the same"
                log.warning(said, people.file, len(without), len(people), people.rows[without[0]])
    if images:
        for n in np.unique(people.imgname.astype(str), return_index=True)[1]:
            opened.images.find(people, n)

"""Whether everything that benchmarks need is there, before hours are spent on the first of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from train.benchmarks.known import Opened
from train.evaluate.bodies import EvaluationBodies
from train.evaluate.measure import true_genders
from train.evaluate.protocols import Protocol


def check_ready(opened: Opened, protocols: Iterable[Protocol], bodies: EvaluationBodies, images: bool) -> None:
    """Raises InputError for the first regressor or body model that a protocol lacks and, if `images` are looked at, for
    the first image that is not there."""
    people = opened.people
    for rules in protocols:
        compares_meshes = rules.chosen and rules.points != "keypoints"
        bodies.require(rules, np.unique(true_genders(people.gender, rules)) if compares_meshes else ())
    if images:
        for n in np.unique(people.imgname.astype(str), return_index=True)[1]:
            opened.images.find(people, n)

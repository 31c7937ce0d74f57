"""The table of coordinates: its signs are what the body does. Run as a script, this file writes the README's table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fitting.anatomy import COORDINATE_NAMES, SKEL_JOINTS
from pipelines.hand_on.coordinates import coordinate_table, main, positive_sense

README = Path(__file__).parents[3] / "pipelines" / "README.md"
BEGIN = "<!-- coordinates: written by python tests/pipelines/hand_on/test_coordinates.py -->\n"
END = "<!-- end of coordinates -->\n"

FORWARD, UP, RIGHT = np.array([0, 0, 1.0]), np.array([0, 1.0, 0]), np.array([-1.0, 0, 0])


def parts() -> tuple[str, str, str]:
    before, _, rest = README.read_text().partition(BEGIN)
    table, _, after = rest.partition(END)
    return before, table, after


def fenced() -> str:
    return f"```\n{coordinate_table()}```\n"


def test_the_readme_has_the_table():
    assert parts()[1] == fenced()


def test_the_command_prints_all_46_within_80_columns(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert text == coordinate_table()
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(COORDINATE_NAMES)
    assert max(map(len, lines)) <= 80
    assert len({line.index("deg") for line in lines[1:]}) == 1, "columns stand under each other"


@pytest.fixture(scope="module")
def body():
    from fitting import SKEL

    skel = SKEL.demo(torch.float64)
    return skel, skel(torch.zeros(1, 46, dtype=torch.float64), torch.zeros(1, 10, dtype=torch.float64))


def bent(body, name: str) -> tuple[np.ndarray, np.ndarray]:
    """How a small positive angle moves joints (24, 3) and skin (V, 3)."""
    skel, rest = body
    poses = torch.zeros(1, 46, dtype=torch.float64)
    poses[0, COORDINATE_NAMES.index(name)] = 0.1
    found = skel(poses, torch.zeros(1, 10, dtype=torch.float64))
    return (found.joints - rest.joints)[0].numpy(), (found.vertices - rest.vertices)[0].numpy()


def moved(body, name: str, where: np.ndarray | None) -> np.ndarray:
    """How a small positive angle moves the skin of its bone: on average, or the outermost point in a direction."""
    skel, rest = body
    line = coordinate_table().splitlines()[COORDINATE_NAMES.index(name) + 1]
    own = np.flatnonzero(skel.weights.argmax(1).numpy() == SKEL_JOINTS.index(line.split()[1]))
    shift = bent(body, name)[1][own]
    return shift.mean(0) if where is None else shift[(rest.vertices[0].numpy()[own] @ where).argmax()]


@pytest.mark.parametrize("name", COORDINATE_NAMES)
def test_a_positive_angle_does_what_the_table_says(body, name):
    inward = -RIGHT if name.endswith("_r") or "_r_" in name else RIGHT
    senses = {
        "lean back": (UP, -FORWARD),
        "lean right": (UP, RIGHT),
        "turn left": (FORWARD, -RIGHT),
        "bend right": (UP, RIGHT),
        "bend back": (UP, -FORWARD),
        "adduction": (None, inward),
        "toes up": (FORWARD, UP),
        "toes down": (FORWARD, -UP),
        "inversion": (FORWARD, inward),
        "forward": (None, FORWARD),
        "backward": (None, -FORWARD),
        "down": (None, -UP),
        "up": (None, UP),
        "ulnar": (None, -FORWARD),
        "pronation": (FORWARD, -UP),
        "turn out": (FORWARD, UP),
    }
    senses["flexion"] = {
        "hip": (None, FORWARD),
        "knee": (None, -FORWARD),
        "elbow": (None, FORWARD),
        "wrist": (None, -UP),
    }.get(name.split("_")[0])
    senses["turn in"] = (FORWARD, inward) if name.startswith("hip") else (FORWARD, -UP)
    sense = positive_sense(name)
    if sense == "tip up":  # the shoulder's end of the scapula rises: seen at the joint that hangs on it
        assert bent(body, name)[0][SKEL_JOINTS.index(f"humerus_{name[-1]}"), 1] > 0
        return
    where, direction = senses[sense]
    assert moved(body, name, where) @ direction > 0.0005


if __name__ == "__main__":
    before, _, after = parts()
    README.write_text(before + BEGIN + fenced() + END + after)

"""Motions played by OpenSim's own kinematics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fitting.anatomy import SKEL_JOINTS


def pose(opensim, model, state, table, frame: int) -> None:
    """Puts an OpenSim model into the pose of a row of a motion."""
    for name, value in zip(table.getColumnLabels(), table.getRowAtIndex(frame).to_numpy(), strict=True):
        coordinate = model.getCoordinateSet().get(name)
        turns = coordinate.getMotionType() == opensim.Coordinate.Rotational
        coordinate.setValue(state, np.radians(value) if turns else value, False)
    model.realizePosition(state)


def played(osim: Path, mot: Path) -> np.ndarray:
    """(T, 24, 3) origins of the bodies as OpenSim's own kinematics has them over the motion."""
    opensim = pytest.importorskip("opensim", reason="OpenSim's Python package is not installed")
    opensim.Logger.setLevelString("error")
    model = opensim.Model(str(osim))
    state = model.initSystem()
    table = opensim.TimeSeriesTable(str(mot))
    assert table.getTableMetaDataString("inDegrees") == "yes"
    found = []
    for frame in range(table.getNumRows()):
        pose(opensim, model, state, table, frame)
        found.append([model.getBodySet().get(name).getPositionInGround(state).to_numpy() for name in SKEL_JOINTS])
    model.realizeAcceleration(state)  # it can be simulated, too
    return np.array(found)

"""Where two stretches of a smoothed film meet."""

from __future__ import annotations

import numpy as np

from train.predict import smooth


def stretch(frames: range, poses: float, trans: float, track: int = 0) -> dict[str, np.ndarray]:
    count = len(frames)
    return {
        "frame": np.array(frames),
        "track": np.full(count, track),
        "smoothed": np.ones(count, bool),
        "poses": np.full((count, 46), poses),
        "trans": np.full((count, 3), trans),
    }


def test_the_later_stretch_begins_where_the_one_before_ends():
    before, later = stretch(range(0, 100, 2), 0.2, 3.0), stretch(range(90, 200, 2), 0.1, 2.5)
    later["poses"][:, 0] += 2 * np.pi  # the pelvis has gone round
    smooth._fade(later, before, 2)
    apart = later["poses"][:, 0] - 2 * np.pi - 0.1
    at = {frame: n for n, frame in enumerate(later["frame"].tolist())}
    assert 0.08 < apart[at[100]] < 0.1 and abs(apart[at[98]]) < 1e-9  # the overlap itself is not written
    own = slice(at[100], at[100 + 2 * smooth._MORE])
    assert (np.diff(apart[own]) < 0).all() and np.abs(apart[own.stop :]).max() < 1e-9
    np.testing.assert_allclose(later["poses"][:, 5] - 0.1, apart, atol=1e-9)
    np.testing.assert_allclose(later["trans"][:, 2] - 2.5, 5 * apart, atol=1e-9)


def test_others_and_tracks_that_were_not_smoothed_stay():
    for before in (stretch(range(100), 0.2, 3.0, track=1), stretch(range(50), 0.2, 3.0)):
        later = stretch(range(90, 200), 0.1, 2.5)
        smooth._fade(later, before, 1)
        assert (later["poses"] == 0.1).all() and (later["trans"] == 2.5).all()
    before, later = stretch(range(100), 0.2, 3.0), stretch(range(90, 200), 0.1, 2.5)
    before["smoothed"][:] = False
    smooth._fade(later, before, 1)
    assert (later["poses"] == 0.1).all()

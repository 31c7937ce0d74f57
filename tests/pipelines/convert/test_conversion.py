"""One work unit with a stand-in for the body models: what is fitted, with which arguments, and what becomes of it."""

from __future__ import annotations

import json
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.convert import overlap, settings
from pipelines.convert.conversion import convert_shard
from pipelines.convert.settings import ConversionSettings
from pipelines.plan.plan_file import plan_file
from pipelines.plan.planning import find_label_files, plan_shards
from pipelines.write.progress import ProgressBar, ShardProgress
from schemas import table_to_columns

ROWS = 9


class FakeBodies:
    """Fits whose every number is known; remembers how it was called."""

    def __init__(self, broken=()):
        self.broken = broken
        self.calls = []

    def fit(self, gender, poses, betas, trans, progress, spent):
        spent("fake", 2.0)
        self.calls.append((gender, poses.copy(), betas.copy(), trans.copy()))
        for first in range(0, len(poses), 2):
            progress(len(poses[first : first + 2]))
        count = len(poses)
        error = poses[:, 0].astype(np.float32)
        found = {name: error.copy() for name in ("vertex_error_mm", "vertex_error_p95_mm", "max_vertex_error_mm")}
        found |= {"joint_error_mm": error, "worst_limit_excess": error, "betas_change": error}
        found |= {"poses": np.tile(poses[:, :1], (1, 46)), "betas": betas + 1, "trans": trans + 2}
        found |= {"stage_vertex_error_mm": np.ones((count, 4)), "stage_cost": np.ones((count, 4))}
        found |= {"iterations": np.full(count, 7), "converged": np.ones(count, bool), "valid": np.ones(count, bool)}
        found |= {"limits_exceeded": np.zeros(count, int), "limits_pressed": np.ones((count, 46), bool)}
        found |= {"verdict": np.full(count, "good"), "betas_pressed": np.zeros((count, 10), bool)}
        for row in np.flatnonzero(np.isin(poses[:, 0], self.broken)):
            found["betas"][row] = np.nan
        return found

    def keypoints(self, gender, poses, betas):
        self.calls.append(("keypoints", gender, len(poses)))
        return np.ones((len(poses), 44, 3), np.float32), np.ones(44)


@pytest.fixture
def make(tmp_path):
    def plan(**changed):
        poses = np.zeros((ROWS, 72), np.float32)
        poses[:, 0] = np.arange(ROWS)
        labels = {"pose_cam": poses, "shape": np.zeros((ROWS, 10)), "trans_cam": np.full((ROWS, 3), 4.0)} | changed
        np.savez(tmp_path / "set-release.npz", **labels)
        [spec] = plan_shards(find_label_files([str(tmp_path / "set-release.npz")], with_images=False), None, 100)
        return spec

    return plan


def convert(tmp_path, spec, bodies):
    output = tmp_path / "out"
    output.mkdir(exist_ok=True)
    people = []
    stats = convert_shard(spec, ConversionSettings(str(output)), bodies, people.append)
    return stats, table_to_columns(pq.read_table(output / "000000.parquet")), sum(people)


def test_a_fit_that_is_not_finite_is_a_reject_and_others_are_untouched(tmp_path, make):
    stats, columns, people = convert(tmp_path, make(), FakeBodies(broken=(2, 5)))
    assert people == ROWS
    assert stats["rejects"] == {"non_finite_pose": 2}
    assert [row["label_row"] for row in stats["rejected_rows"]] == [2, 5]
    kept = [0, 1, 3, 4, 6, 7, 8]
    assert columns["label_row"].tolist() == kept
    assert columns["poses"][:, 0].tolist() == kept
    assert (columns["limits_pressed"] == 46).all() and (columns["iterations"] == 7).all()
    assert (columns["trans"] == 6).all() and (columns["smpl_trans"] == 4).all()


def test_progress_counts_every_row_once(tmp_path, make):
    poses = np.zeros((ROWS, 72), np.float32)
    poses[[1, 4, 8]] = np.nan
    spec = make(pose_cam=poses)
    assert convert(tmp_path, spec, FakeBodies())[2] == ROWS
    assert convert(tmp_path, spec, None)[2] == ROWS  # finished: no body model is touched


def test_a_change_of_behaviour_makes_older_shards_again(tmp_path, make, monkeypatch):
    def plan():
        files = find_label_files([str(tmp_path / "set-release.npz")], with_images=False)
        [spec] = plan_shards(files, None, 100, settings_hash=ConversionSettings("").sha256())
        return spec

    make()
    convert(tmp_path, plan(), FakeBodies())
    convert(tmp_path, plan(), None)  # kept
    monkeypatch.setattr(settings, "BEHAVIOUR", settings.BEHAVIOUR + 1)
    bodies = FakeBodies()
    convert(tmp_path, plan(), bodies)
    assert bodies.calls


def test_a_batch_is_filled_across_label_files(tmp_path):
    """Small label files in one shard: its people are fitted in one call, in the order of the files."""
    for number, rows in enumerate((2, 3, 4)):
        poses = np.zeros((rows, 72), np.float32)
        poses[:, 0] = 10 * number + np.arange(rows)
        np.savez(tmp_path / f"{number}-release.npz", pose_cam=poses, shape=np.zeros((rows, 10)))
    files = find_label_files([str(tmp_path / "*.npz")], with_images=False)
    specs = list(plan_shards(files, None, 9))
    assert [[len(part) for part in spec.rows] for spec in specs] == [[2, 3, 4]]
    bodies = FakeBodies()
    for spec in specs:
        (tmp_path / "out").mkdir(exist_ok=True)
        convert_shard(spec, ConversionSettings(str(tmp_path / "out")), bodies)
    fits = [call[1][:, 0].tolist() for call in bodies.calls if call[0] != "keypoints"]
    assert fits == [[0, 1, 10, 11, 12, 20, 21, 22, 23]]
    columns = table_to_columns(pq.read_table(tmp_path / "out" / "000000.parquet"))
    assert columns["poses"][:, 0].tolist() == fits[0]
    assert columns["label_file"].tolist() == ["0-release.npz"] * 2 + ["1-release.npz"] * 3 + ["2-release.npz"] * 4


def test_each_gender_is_fitted_to_its_own_smpl(tmp_path, make):
    genders = np.array(["male", "f", "neutral"] * 3)
    bodies = FakeBodies()
    _, columns, _ = convert(tmp_path, make(gender=genders), bodies)
    fits = {call[0]: call[1][:, 0].tolist() for call in bodies.calls if call[0] != "keypoints"}
    assert fits == {"female": [1, 4, 7], "male": [0, 3, 6], "neutral": [2, 5, 8]}
    assert columns["poses"][:, 0].tolist() == list(range(ROWS))
    assert columns["gender"].tolist() == ["male", "female", "neutral"] * 3


def test_a_translation_that_is_not_finite_counts_as_absent(tmp_path, make):
    trans = np.full((ROWS, 3), 4.0)
    trans[3, 1] = np.nan
    bodies = FakeBodies()
    _, columns, _ = convert(tmp_path, make(trans_cam=trans), bodies)
    assert columns["trans_source"].tolist() == ["label"] * 3 + ["none"] + ["label"] * 5
    assert columns["smpl_trans"][3].tolist() == [0, 0, 0]
    assert np.isfinite(bodies.calls[-1][3]).all()


def test_labelled_3d_keypoints_are_kept_and_gaps_get_no_confidence(tmp_path, make):
    points = np.random.default_rng(0).normal(size=(ROWS, 44, 4)).astype(np.float32)
    points[2] = np.nan  # none of this row: the body's own
    points[4, 7, 1] = np.nan
    _, columns, _ = convert(tmp_path, make(keypoints3d=points), FakeBodies())
    found = columns["keypoints_3d"]
    assert np.array_equal(found[0], points[0])
    assert (found[2] == [5, 5, 5, 1]).all()
    assert found[4, 7].tolist() == [0, 0, 0, 0]
    assert np.array_equal(found[4, :7], points[4, :7])


def test_a_shard_without_a_usable_row_is_still_written(tmp_path, make):
    spec = make(shape=np.full((ROWS, 10), np.nan))
    bodies = FakeBodies()
    stats, _, people = convert(tmp_path, spec, bodies)
    assert (stats["samples"], stats["rejects"], people) == (0, {"non_finite_shape": ROWS}, ROWS)
    assert bodies.calls == []


def test_the_bar_adds_up_what_workers_write_and_clears_up(tmp_path, monkeypatch):
    import tqdm

    shown = []

    class Bar:
        def __init__(self, _iterable, **options):
            self.n, self.total = 0, options["total"]

        def update(self, count):
            self.n += count
            shown.append(self.n)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    with ProgressBar(tmp_path, 30):
        for shard, steps in (("000000", [4, 6]), ("000001", [20])):
            progress = ShardProgress(tmp_path, shard)
            for step in steps:
                progress(step)
            progress.write()
    assert shown[-1] == 30 and shown == sorted(shown)
    assert list(tmp_path.iterdir()) == []
    ShardProgress(tmp_path, "late").write()  # the folder is gone: not an error


def test_statistics_name_the_rows_left_out(tmp_path, make):
    shape = np.zeros((ROWS, 10))
    shape[6] = np.inf
    convert(tmp_path, make(shape=shape), FakeBodies())
    stats = json.loads((tmp_path / "out" / "000000.json").read_text())
    [row] = stats["rejected_rows"]
    assert (row["label_file"], row["label_row"], row["reason"]) == ("set-release.npz", 6, "non_finite_shape")


def test_a_shard_is_written_while_the_next_one_is_fitted(tmp_path, make, monkeypatch):
    from pipelines import build_hmr_skel
    from pipelines.convert import conversion

    second_fit, overlapped = threading.Event(), []

    class Bodies(FakeBodies):
        def fit(self, *arguments, **more):
            if any(call[0] != "keypoints" for call in self.calls):
                second_fit.set()
            return super().fit(*arguments, **more)

    def write(directory, spec, *rest):
        if spec.name == "000000":
            overlapped.append(second_fit.wait(20))
        return write_shard(directory, spec, *rest)

    make()
    output = tmp_path / "out"
    output.mkdir()
    files = find_label_files([str(tmp_path / "set-release.npz")], with_images=False)
    bodies, write_shard = Bodies(), conversion.write_shard
    monkeypatch.setattr(conversion, "write_shard", write)
    monkeypatch.setattr(overlap, "bodies_of_process", lambda settings, run: bodies)
    convert = build_hmr_skel.ConvertShard(ConversionSettings(str(output)))
    convert.setup()
    with plan_file(output, "", plan_shards(files, None, 4)) as planned:
        found = [stats for shard in planned for stats in convert.process(shard)]
        found += [windowed.value for windowed in convert.finish_bundle()]
    convert.teardown()
    assert overlapped == [True]
    assert [(stats["shard"], stats["samples"]) for stats in found] == [("000000", 4), ("000001", 4), ("000002", 1)]
    assert all(stats["seconds"]["fit"] == {"fake": 2.0} for stats in found)

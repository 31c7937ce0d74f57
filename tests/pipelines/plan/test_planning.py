"""Plans: every selected row in exactly one shard, stable names and hashes, labels read no further than needed."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.plan.cuts import cut
from pipelines.plan.person_numbers import person_numbers
from pipelines.plan.planning import (
    RowSelection,
    ShardSpec,
    find_label_files,
    plan_shards,
    sample_key,
)
from pipelines.read.images import open_images
from schemas import InputError


def write_labels(path, names):
    rows = len(names)
    np.savez(
        path,
        imgname=np.array(names),
        center=np.zeros((rows, 2)),
        scale=np.ones(rows),
        pose_cam=np.zeros((rows, 72), np.float32),
        shape=np.zeros((rows, 10), np.float32),
        cam_int=np.zeros((rows, 3, 3)),
        gtkps=np.zeros((rows, 44, 3)),
    )
    return path


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    write_labels(tmp_path / "b-release.npz", [f"b/{i}.jpg" for i in rng.integers(0, 9, 17)])
    write_labels(tmp_path / "a-release.npz", [f"a/{i}.jpg" for i in rng.integers(0, 9, 25)])
    return tmp_path


def planned_rows(specs):
    return [
        (part.label_file, row)
        for spec in specs
        for part in spec.rows
        for row in range(part.start, part.stop, part.step)
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.one_of(st.none(), st.integers(-30, 30)),
    st.one_of(st.none(), st.integers(-30, 30)),
    st.integers(1, 7),
)
def test_every_selected_row_is_in_one_shard_in_order(plan_folder, size, first, last, every):
    files = find_label_files([str(plan_folder / "*.npz")], with_images=True)
    specs = list(plan_shards(files, None, size, RowSelection(first, last, every)))
    expected = [(file.path, row) for file in files for row in list(range(file.rows))[first:last:every]]
    assert [file.dataset for file in files] == ["a", "b"]
    assert planned_rows(specs) == expected
    assert [spec.name for spec in specs] == [f"{i:06d}" for i in range(len(specs))]
    assert all(0 < len(spec) <= size for spec in specs)


@pytest.fixture(scope="module")
def plan_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan")
    for name, rows in (("b", 17), ("a", 25)):
        write_labels(path / f"{name}-release.npz", [f"{name}/{i % 4}.jpg" for i in range(rows)])
    return path


def test_persons_count_the_earlier_rows_of_an_image(folder):
    for file in find_label_files([str(folder)], with_images=True):
        seen = Counter()
        expected = []
        for name in file.read()["imgname"]:
            expected.append(seen[name])
            seen[name] += 1
        assert max(expected) > 0
        assert person_numbers(file).tolist() == expected
        # they do not depend on which rows are selected
        whole = [p for spec in plan_shards([file], None, 5) for p in spec.persons]
        part = [p for spec in plan_shards([file], None, 5, RowSelection(3, None, 2)) for p in spec.persons]
        assert whole == expected and part == expected[3::2]


def test_persons_are_counted_over_the_whole_file(tmp_path):
    """The rows of an image may be far apart."""
    names = [f"x/{i}.jpg" for i in np.random.default_rng(0).integers(0, 40, 1000)]
    write_labels(tmp_path / "x.npz", names)
    [file] = find_label_files([str(tmp_path / "x.npz")], with_images=True)
    assert person_numbers(file).tolist() == [names[:i].count(name) for i, name in enumerate(names)]


def test_an_image_under_two_extensions_still_gives_different_keys(tmp_path):
    write_labels(tmp_path / "x.npz", ["a/b.jpg", "a/b.png", "a/b"])
    [file] = find_label_files([str(tmp_path / "x.npz")], with_images=True)
    persons = person_numbers(file)
    keys = {sample_key("x", name, p) for name, p in zip(["a/b.jpg", "a/b.png", "a/b"], persons, strict=True)}
    assert len(keys) == 3


identity = st.tuples(
    st.text(st.characters(exclude_characters="/", exclude_categories=()), min_size=1, max_size=8),
    st.text("ab/.=+-_ äH\ud800", max_size=12).filter(lambda name: "." not in name),
    st.integers(0, 30),
)


@given(identity, identity)
def test_keys_are_injective_and_plain(one, other):
    key = sample_key(*one)
    assert re.fullmatch(r"[A-Za-z0-9_+=-]+", key)
    assert (key == sample_key(*other)) == (one == other)


def test_long_names_make_bounded_keys_that_stay_different():
    keys = [sample_key("x", "long/" * 100 + end, 0) for end in ("a", "b")]
    assert keys[0] != keys[1]
    assert max(map(len, keys)) <= 200
    assert sample_key("aic", "aic-train/Ab_1-2.jpg", 3) == "aic+aic-train+Ab_1-2+3"


def test_specs_survive_json_and_pickle_and_carry_byte_ranges(folder):
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i in range(6):
            info = tarfile.TarInfo(f"a/{i}.jpg")
            info.size = 10 + i
            tar.addfile(info, io.BytesIO(b"%d" % i * (10 + i)))
    files = find_label_files([str(folder)], with_images=True)
    specs = list(plan_shards(files, open_images(str(folder)), 10))
    assert specs == [ShardSpec.from_json(spec.to_json()) for spec in specs]
    assert specs == pickle.loads(pickle.dumps(specs))
    names = np.concatenate([file.read()["imgname"] for file in files])
    found = [spec.image(i) for spec in specs for i in range(len(spec))]
    for name, image in zip(names, found, strict=True):
        if name in {f"a/{i}.jpg" for i in range(6)}:
            assert (image.file, image.member, image.size) == ("0.tar", name, 10 + int(name[2]))
        else:
            assert image == "not in the 1 image tars"


def test_hashes_change_with_rows_images_settings_and_labels_only(folder):
    def hashes(settings="s", every=1, images=None):
        files = find_label_files([str(folder)], with_images=True)
        return [spec.hash for spec in plan_shards(files, images, 10, RowSelection(every=every), settings)]

    base = hashes()
    assert base == hashes()
    assert len(set(base)) == len(base)
    assert not set(base) & set(hashes("t"))
    assert not set(base) & set(hashes(every=2))
    (folder / "a").mkdir()
    (folder / "a" / "1.jpg").write_bytes(b"12")
    assert not set(base) & set(hashes(images=open_images(str(folder))))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_changed_row_changes_its_shard_alone(folder, compressed, order):
    """Whatever field it is in, and however the file is stored."""
    path = folder / "a-release.npz"
    content = {name: np.asarray(values, order=order) for name, values in np.load(path).items()}
    content |= {"gender": np.array(["male"] * 25), "cam_int": np.eye(3)[None]}

    def hashes():
        (np.savez_compressed if compressed else np.savez)(path, **content)
        return [
            s.hash for s in plan_shards(find_label_files([str(folder)], with_images=True), None, 10, RowSelection())
        ]

    before = hashes()
    assert len(before) == 3 + 2
    for name, value in (("pose_cam", 1.5), ("imgname", "a/a-longer-name.jpg"), ("gender", "neutral")):
        content[name] = content[name].astype("U30") if content[name].dtype.kind == "U" else content[name].copy(order)
        content[name][13] = value
        after = hashes()
        assert [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [1], name
        before = after
    content["cam_int"] = content["cam_int"] + 1  # of all rows
    assert [a == b for a, b in zip(before, hashes(), strict=True)] == [False] * 3 + [True] * 2


def test_added_rows_and_files_change_no_other_shard(folder):
    def hashes(size=10):
        return [spec.hash for spec in plan_shards(find_label_files([str(folder)], with_images=True), None, size)]

    before = hashes()
    write_labels(folder / "ab-release.npz", [f"ab/{i}.jpg" for i in range(12)])
    assert hashes()[:3] == before[:3] and hashes()[5:] == before[3:]  # under other numbers
    rows = dict(np.load(folder / "b-release.npz"))
    np.savez(folder / "b-release.npz", **{name: np.concatenate([rows[name], rows[name][:5]]) for name in rows})
    assert hashes()[:6] == [*before[:3], *hashes()[3:5], before[3]] and len(hashes()) == 8


def shards_of(files, size):
    return [tuple((files[part.file][0], part.start, part.stop) for part in shard) for shard in cut(files, size)]


small_and_large = st.lists(st.tuples(st.text("abc", min_size=6, max_size=6), st.integers(0, 40)), max_size=40)


@given(small_and_large, st.integers(1, 20))
def test_cuts_hold_every_row_once_and_shards_that_are_shared_are_half_full(files, size):
    shards = list(cut(files, size))
    rows = [(part.file, row) for shard in shards for part in shard for row in range(part.start, part.stop)]
    assert rows == [(number, row) for number, (_, count) in enumerate(files) for row in range(count)]
    held = [sum(part.stop - part.start for part in shard) for shard in shards]
    small = [all(2 * files[part.file][1] < size for part in shard) for shard in shards]
    assert all(0 < count <= size for count in held)
    assert all(len(shard) == 1 for shard, shared in zip(shards, small, strict=True) if not shared)
    for count, shared, next_shared in zip(held, small, small[1:], strict=False):
        assert 2 * count > size or not (shared and next_shared)


def test_a_small_file_that_is_added_moves_few_cuts():
    """As among the thousands of sequences of a motion library; shards are three quarters full on average."""
    dice = np.random.default_rng(0)
    new, held = [], []
    for _ in range(60):
        files = [(f"sequence-{i:04d}", int(n)) for i, n in enumerate(dice.integers(1, dice.choice([20, 400]), 200))]
        at = int(dice.integers(200))
        before = shards_of(files, 1000)
        after = shards_of([*files[:at], (f"sequence-{at:04d}a", 50), *files[at:]], 1000)
        new.append(len(set(after) - set(before)))
        held += [sum(stop - start for _, start, stop in shard) for shard in before[:-1]]
    assert np.mean(new) < 2.5 and 650 < np.mean(held) <= 1000


def test_the_plan_does_not_depend_on_where_the_files_lie(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    for path in folder.glob("*.npz"):
        (other / path.name).write_bytes(path.read_bytes())
    plans = [plan_shards(find_label_files([str(place)], with_images=True), None, 7) for place in (folder, other)]
    assert [spec.hash for spec in plans[0]] == [spec.hash for spec in plans[1]]


def test_only_image_names_are_read(folder, monkeypatch):
    from pipelines.files import npz as npz_members

    read = set()
    original = npz_members._read_rows
    monkeypatch.setattr(npz_members, "_read_rows", lambda p, c, m, a, b: read.add(m.name) or original(p, c, m, a, b))
    list(plan_shards(find_label_files([str(folder)], with_images=True), None, 7))
    assert read == {"imgname"}


def test_labels_without_image_names_can_be_planned_without_images(tmp_path):
    np.savez(tmp_path / "walk.npz", poses=np.zeros((5, 72)), betas=np.zeros(10))
    files = find_label_files([str(tmp_path / "walk.npz")], with_images=False)
    specs = list(plan_shards(files, None, 2))
    assert [len(spec) for spec in specs] == [2, 2, 1]
    with pytest.raises(InputError, match="imgname"):
        find_label_files([str(tmp_path / "walk.npz")], with_images=True)


def test_what_cannot_be_meant_is_refused(folder, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "a.npz").write_bytes((folder / "a-release.npz").read_bytes())
    with pytest.raises(InputError, match=r"data-set name 'a'"):
        find_label_files([str(folder), str(tmp_path / "copy")], with_images=True)
    with pytest.raises(InputError, match="no such label file"):
        find_label_files([str(tmp_path / "*.npy")], with_images=True)
    with pytest.raises(InputError, match=r"'c'.*a, b"):
        find_label_files([str(folder)], with_images=True, datasets=["c"])
    assert [f.dataset for f in find_label_files([str(folder)], with_images=True, datasets=["b"])] == ["b"]
    for text in ("5", "a:b", "1:2:3"):
        with pytest.raises(InputError, match="START:STOP"):
            RowSelection.parse(text)
    with pytest.raises(InputError, match="every"):
        RowSelection.parse("", every=0)
    assert RowSelection.parse("-3:").of(10) == range(7, 10)

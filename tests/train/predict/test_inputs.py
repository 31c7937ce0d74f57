"""What a command line names."""

from __future__ import annotations

import pytest

from schemas import InputError
from train.predict.inputs import find_sources


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_files_folders_and_globs_each_once(tmp_path):
    for name in (
        "b.jpg",
        "a.PNG",
        "sub/c.mp4",
        "sub/b.jpg",
        "notes.txt",
        ".hidden.jpg",
        ".git/d.jpg",
        "overlays/e.jpg",
    ):
        touch(tmp_path / name)
    found = find_sources([str(tmp_path), str(tmp_path / "*.jpg"), str(tmp_path / "sub" / "b.jpg")], tmp_path)
    assert [s.path.relative_to(tmp_path).as_posix() for s in found] == ["a.PNG", "b.jpg", "sub/b.jpg", "sub/c.mp4"]
    assert [s.stem for s in found] == ["a", "b", "sub/b", "sub/c"]
    assert [s.is_film for s in found] == [False, False, False, True]
    [only] = find_sources([str(tmp_path / "notes.txt")], tmp_path / "out")  # whoever names a file means it
    assert only.name == str(tmp_path / "notes.txt")


def test_no_two_sources_have_one_stem(tmp_path):
    for name in ("x/a.jpg", "y/a.jpg", "y/a.png", "y/A.jpeg"):
        touch(tmp_path / name)
    found = find_sources([str(tmp_path / "x" / "a.jpg"), str(tmp_path / "y")], tmp_path / "out")
    assert [s.stem for s in found] == ["a", "A-2", "a-3", "a-4"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.jpg", "no such file"),
        ("*.jpg", "matches no file"),
        ("empty", "no photographs or films"),
        ("run", "is a training run; expected --checkpoint"),
        ("model.pt", "looks like a network; expected --checkpoint"),
        ("gs://bucket/a.jpg", "URLs are not read"),
    ],
)
def test_names_that_lead_to_nothing_and_networks_are_told(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "run" / "checkpoint-00000001.pt")
    touch(tmp_path / "run" / "curves.png")
    touch(tmp_path / "model.pt")
    text = name if "://" in name else str(tmp_path / name)
    with pytest.raises(InputError, match=said):
        find_sources([text], tmp_path / "out")
    with pytest.raises(InputError, match="nothing to look at"):
        find_sources([], tmp_path / "out")

"""Images in tars and folders: the index, the data sets' naming rules, damage, and names that must be refused."""

from __future__ import annotations

import io
import logging
import os
import tarfile

import numpy as np
import pytest

from pipelines.files.tar import TarScan
from pipelines.read.images import FolderImages, ImageRef, TarImages, open_images, read_image
from schemas import InputError


def write_tar(path, members, *, format=tarfile.PAX_FORMAT, extra=()):
    """A tar of 4DHumans' kind: an image, its annotations, per key."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return path


LONG = "insta/" + "x" * 150 + "/" + "y" * 120
NAMES = ["aic-train-vitpose/one.jpg", "two.JPG", "h36m/S1_Walk.5413/0001.jpeg", LONG + "/0007.png", "ünï/5.jpg"]


@pytest.fixture
def members():
    rng = np.random.default_rng(0)
    found = []
    for name in NAMES:
        found.append((name, rng.bytes(int(rng.integers(1, 3000)))))
        found.append((os.path.splitext(name)[0] + ".data.pyd", b"\x80\x04 never to be opened"))
    return found


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_index_finds_what_tarfile_finds(tmp_path, members, format):
    members = [m for m in members if format != tarfile.USTAR_FORMAT or LONG not in m[0]]
    path = write_tar(tmp_path / "0.tar", members, format=format)
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar]
    scan = TarScan(str(path))
    assert [(m.name, m.offset, m.size) for m in scan] == expected
    assert scan.damage is None
    images = open_images(str(tmp_path))
    for name, data in members:
        if not name.endswith(".pyd"):
            ref = images.find("unknown", name)
            assert read_image(images.root, ref) == data
            assert ref.label == f"0.tar:{name}"


RULES = [
    ("aic", "aic-train/ab12.jpg", "aic-train-vitpose/ab12.jpg"),
    ("coco", "images/train2014/COCO_train2014_000000000009.jpg", "COCO_train2014_000000000009.jpg"),
    ("mpii", "images/015601864.jpg", "mpii-train/015601864.jpg"),
    ("h36m", "S1/S1_Directions_1.54138969_000001", "S1/S1_Directions_1.54138969_000001.jpg"),
    ("mpi-inf", "S2/Seq1/imageFrames/video_0/frame_000005", "S2/Seq1/imageFrames/video_0/frame_000005.png"),
    ("insta1", "insta/train/boxing_hello_world_3/17.jpg", "insta/train/boxing_he_wo_3/0017.jpg"),
    ("insta2", "insta/train/yoga_ab_c_12/images/00123.jpg", "insta/train/yoga_ab_c_12/images/00123.jpg"),
    ("other", "as/it/stands.png", "as/it/stands.png"),
]


@pytest.mark.parametrize(("dataset", "imgname", "member"), RULES)
def test_naming_rules_of_the_data_sets(tmp_path, dataset, imgname, member):
    write_tar(tmp_path / "a.tar", [("zz/unrelated.jpg", b"no"), (member, b"yes")])
    images = open_images(str(tmp_path / "a.tar"))
    assert read_image(images.root, images.find(dataset, imgname)) == b"yes"
    assert isinstance(images.find("other", "zz/" + imgname), str)
    folder = tmp_path / "folder"
    if dataset in ("coco", "mpii"):
        member = os.path.basename(member)
    (folder / member).parent.mkdir(parents=True)
    (folder / member).write_bytes(b"yes")
    images = open_images(str(folder))
    assert isinstance(images, FolderImages)
    assert read_image(images.root, images.find(dataset, imgname)) == b"yes"


def test_a_base_name_in_two_data_sets_is_taken_from_the_right_one_or_not_at_all(tmp_path):
    (tmp_path / "mpii").mkdir()
    write_tar(tmp_path / "mpii" / "0.tar", [("a/7.jpg", b"mpii")])
    write_tar(tmp_path / "insta.tar", [("b/7.jpg", b"insta")])
    images = open_images(str(tmp_path))
    assert read_image(images.root, images.find("mpii", "images/7.jpg")) == b"mpii"
    assert isinstance(images.find("coco", "images/7.jpg"), str)


def test_a_name_that_several_different_images_have_is_none_of_them(tmp_path):
    write_tar(tmp_path / "a.tar", [("k.jpg", b"first"), ("m.jpg", b"equal")])
    write_tar(tmp_path / "b.tar", [("k.jpg", b"third"), ("m.jpg", b"equal"), ("n.jpg", b"n")])
    images = open_images(str(tmp_path))
    problem = images.find("x", "k.jpg")
    assert problem == "several different images have this name: a.tar:k.jpg, b.tar:k.jpg"
    assert read_image(images.root, images.find("x", "m.jpg")) == b"equal"
    assert read_image(images.root, images.find("x", "n.jpg")) == b"n"


def test_the_extension_of_the_label_comes_before_another(tmp_path):
    write_tar(tmp_path / "a.tar", [("same.jpg", b"jpg"), ("same.png", b"png"), ("other.png", b"other")])
    images = open_images(str(tmp_path))
    assert read_image(images.root, images.find("x", "same.png")) == b"png"
    assert read_image(images.root, images.find("x", "same.JPG")) == b"jpg"
    assert read_image(images.root, images.find("x", "other.jpg")) == b"other"
    assert "several different images" in images.find("x", "same")


SPELLINGS = ("sub/win.jpg", "sub\\win.jpg", "./sub/win.jpg", "sub//win.jpg", "sub/./win.jpg", "sub/win.JPG")


@pytest.mark.parametrize("kind", ["tar", "folder"])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("stored", ["sub/win.jpg", "sub/win.JPG"])
def test_one_normal_form_of_names(tmp_path, kind, spelling, stored):
    if kind == "tar":
        write_tar(tmp_path / "a.tar", [("./" + stored, b"yes"), ("sub/win2.jpg", b"no")])
    else:
        (tmp_path / "sub").mkdir()
        (tmp_path / stored).write_bytes(b"yes")
        (tmp_path / "sub" / "win2.jpg").write_bytes(b"no")
    images = open_images(str(tmp_path))
    assert read_image(images.root, images.find("x", spelling)) == b"yes"


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_composed_and_decomposed_letters_are_the_same(tmp_path, kind):
    stored, asked = "cafe\u0301.jpg", "caf\u00e9.jpg"
    for there, name in ((stored, asked), (asked, stored)):
        place = tmp_path / f"{len(there)}"
        place.mkdir()
        if kind == "tar":
            write_tar(place / "a.tar", [(there, b"yes")])
        else:
            (place / there).write_bytes(b"yes")
        images = open_images(str(place))
        assert read_image(images.root, images.find("x", name)) == b"yes"


def test_a_tar_among_images_does_not_hide_them(tmp_path, caplog):
    write_tar(tmp_path / "thumbs.tar", [("in_tar.jpg", b"tar")])
    (tmp_path / "plain.jpg").write_bytes(b"plain")
    (tmp_path / "more.tar.gz").write_bytes(b"packed")
    images = open_images(str(tmp_path))
    assert read_image(images.root, images.find("x", "plain.jpg")) == b"plain"
    assert read_image(images.root, images.find("x", "in_tar.jpg")) == b"tar"
    assert images.find("x", "none.jpg") == "not in the 1 image tars"
    assert "1 packed files such as more.tar.gz are not read" in caplog.text


def test_a_tar_without_images_is_no_source(tmp_path):
    write_tar(tmp_path / "labels.tar", [("text.txt", b"")])
    (tmp_path / "plain.jpg").write_bytes(b"plain")
    assert isinstance(open_images(str(tmp_path)), FolderImages)


@pytest.mark.parametrize("cut", ["header", "data", "boundary"])
def test_a_cut_tar_is_reported_and_what_precedes_the_cut_is_used(tmp_path, caplog, cut):
    path = write_tar(tmp_path / "a.tar", [("k1.jpg", b"1" * 700), ("k2.jpg", b"2" * 700), ("k3.jpg", b"3" * 700)])
    third = 2 * (512 + 1024)
    end = {"header": third + 100, "data": third + 512 + 50, "boundary": third}[cut]
    path.write_bytes(path.read_bytes()[:end])
    with caplog.at_level(logging.WARNING):
        images = open_images(str(path))
    assert f"{path}: damaged at byte {third}" in caplog.text
    assert read_image(images.root, images.find("x", "k2.jpg")) == b"2" * 700
    assert isinstance(images.find("x", "k3.jpg"), str)


def test_a_damaged_header_is_no_silent_end(tmp_path, caplog):
    path = write_tar(tmp_path / "a.tar", [("k1.jpg", b"1"), ("k2.jpg", b"2"), ("k3.jpg", b"3")])
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 0x20
    path.write_bytes(bytes(content))
    images = open_images(str(path))
    assert "damaged at byte 1024" in caplog.text
    assert isinstance(images.find("x", "k3.jpg"), str)


def link(name, kind, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_and_unsafe_names_in_tars_are_refused(tmp_path, caplog):
    extra = [link("l1.jpg", tarfile.SYMTYPE, "/etc/passwd"), link("l2.jpg", tarfile.LNKTYPE, "k.jpg")]
    write_tar(tmp_path / "a.tar", [("/abs.jpg", b"a"), ("x/../../up.jpg", b"b"), ("k.jpg", b"c")], extra=extra)
    images = open_images(str(tmp_path))
    assert len(images.tars.index) == 1 and images.find("x", "k.jpg").size == 1
    assert "refused 2 links and 2 names" in caplog.text


def test_names_that_leave_the_folder_are_refused(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    folder = tmp_path / "images"
    (folder / "real").mkdir(parents=True)
    (folder / "real" / "a.jpg").write_bytes(b"a")
    os.symlink(tmp_path / "secret.jpg", folder / "link.jpg")
    os.symlink(tmp_path, folder / "up")
    os.symlink(folder / "real", folder / "inside")
    os.mkfifo(folder / "pipe.jpg")
    images = open_images(str(folder))
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "up/secret.jpg", "pipe.jpg", "real", "n\0"):
        assert isinstance(images.find("x", name), str), name
    assert read_image(images.root, images.find("x", "inside/a.jpg")) == b"a"


def test_an_image_file_that_has_shrunk_since_is_noticed(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"12")
    with pytest.raises(EOFError):
        read_image(str(tmp_path), ImageRef("a.jpg", 0, 3))


@pytest.mark.parametrize("where", ["absent", "absent*.tar", "labels.npz", "empty.tar"])
def test_nothing_there_is_an_input_error(tmp_path, where):
    (tmp_path / "labels.npz").write_bytes(b"x")
    write_tar(tmp_path / "empty.tar", [("text.txt", b"")])
    with pytest.raises(InputError, match=where.replace("*", r"\*")):
        open_images(str(tmp_path / where))
    assert open_images("none") is None


def test_mutated_tars_never_crash_the_index(tmp_path, members):
    path = write_tar(tmp_path / "a.tar", members)
    good = path.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(300):
        bad = bytearray(good)
        for position in rng.integers(0, len(good), rng.integers(1, 20)):
            bad[position] = rng.integers(256)
        bad = bad[: rng.integers(1, len(bad))]
        path.write_bytes(bad)
        try:
            images = open_images(str(path))
        except InputError:
            continue
        assert isinstance(images, TarImages)
        for name, _ in members:
            ref = images.find("unknown", name)
            assert isinstance(ref, str) or 0 <= ref.offset <= ref.offset + ref.size <= len(bad)

"""Which shards a folder means: those that its manifest lists."""

from __future__ import annotations

import json
import logging

import pytest
import written_shards

from pipelines.command.hmr_skel import main
from pipelines.files.shards import find_shards
from train.data.shards import training_shards


@pytest.fixture
def folder(tmp_path):
    """Of three shards two are listed."""
    written_shards.write_dataset(tmp_path / "set", (3, 2, 2))
    manifest = json.loads((tmp_path / "set" / "dataset.json").read_text())
    manifest["shards"].pop()
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(manifest))
    return tmp_path / "set"


@pytest.mark.parametrize("find", [find_shards, training_shards])
def test_a_folder_means_what_its_manifest_lists(folder, find, caplog):
    with caplog.at_level(logging.WARNING):
        assert [shard.name for shard in find([str(folder)])] == ["000000", "000001"]
    assert "left aside shard 000002, which dataset.json does not list" in caplog.text
    assert [shard.name for shard in find([str(folder / "*.tar")])] == ["000000", "000001", "000002"]


def test_verification_tells_of_shards_that_are_not_listed(folder, capsys):
    assert main(["inspect", str(folder), "--verify"]) == 1
    assert "does not list shards that are there: 000002" in " ".join(capsys.readouterr().out.split())


def test_a_folder_without_a_usable_manifest_means_all(folder, caplog):
    for text in (None, "[1]", '{"shards": 3}', '{"shards": [{"shard": []}]}', "{"):
        if text is None:
            (folder / "dataset.json").unlink()
        else:
            (folder / "dataset.json").write_text(text)
        assert len(find_shards([str(folder)])) == 3
    (folder / "dataset.json").unlink()
    with caplog.at_level(logging.WARNING):
        training_shards([str(folder)])
    assert "no dataset.json" in caplog.text

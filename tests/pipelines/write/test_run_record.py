"""run.json: what a run took, from what its workers tell."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from pipelines.write.progress import print_summary
from pipelines.write.run_record import run_facts, write_run

README = Path(__file__).parents[3] / "pipelines" / "README.md"


def test_the_record_of_a_run_tells_busy_shares(tmp_path, capsys):
    def shard(name, began, ended, fit, waited=0.0):
        seconds = {"began": began, "ended": ended, "all": ended - began, "fit": fit}
        return {"shard": name, "rows": 10, "seconds": seconds | {"device_wait": waited, "images": 1.0}}

    shards = [shard("000000", 100.0, 104.0, {"a cuda:0": 3.0}), {"shard": "000003", "rows": 5}]
    shards += [shard("000001", 101.0, 108.0, {"a cuda:1": 5.0}, 2.0), shard("000002", 102.0, 110.0, {"a cuda:0": 4.0})]
    run = write_run(tmp_path, {"started": time.time() - 30}, shards)
    assert run == json.loads((tmp_path / "run.json").read_text())
    assert run["devices"] == {
        "a cuda:0": {"fit_s": 7.0, "busy_share": 0.7},
        "a cuda:1": {"fit_s": 5.0, "busy_share": 0.5},
    }
    assert run["busy_share"] == 0.6
    assert (run["worker_s"], run["device_wait_share"], run["image_wait_share"]) == (19.0, 0.1053, 0.1579)
    assert (run["rows_made"], run["rows_kept"], run["shards_kept"]) == (30, 5, 1)
    manifest = {"rows": 35, "samples": 0, "converged": 0, "verdicts": {}, "rejects": {}, "shards": shards}
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    print_summary(tmp_path, "out", 10.0)
    assert "60% of the time" in capsys.readouterr().out
    kept = write_run(tmp_path, {"started": time.time() - 30}, shards[1:2])
    assert (kept["devices"], kept["busy_share"]) == ({}, None)
    print_summary(tmp_path, "out", 10.0)
    assert "of the time" not in capsys.readouterr().out


def test_the_readme_tells_each_field(tmp_path):
    of_the_job = {"device", "workers", "processes", "threads", "runner", "plan_s"}  # convert/job.py, build_hmr_skel.py
    of_merging = {"merged"}  # merge_parts.py
    document = write_run(tmp_path, run_facts(), [])
    chapter = README.read_text().partition("`run.json` tells what this run took")[2].partition("\n### ")[0]
    told = [
        name for row in chapter.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    ]
    assert sorted(told) == sorted(document.keys() | of_the_job | of_merging)

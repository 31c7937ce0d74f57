"""The console scripts `hmr-skel` and `beam`, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from simple_parsing import field

from pipelines.command import beam as beam_cli
from pipelines.command import hmr_skel as cli
from schemas import InputError

ROOT = Path(__file__).parents[3]
SCRIPTS = Path(sys.executable).parent


def run(*command: str, cwd: Path | None = None, env: dict | None = None) -> subprocess.CompletedProcess:
    script = SCRIPTS / command[0]
    if not script.exists():
        pytest.skip(f"{script} is not installed")
    return subprocess.run(
        [script, *command[1:]], capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=120
    )


def test_help_lists_each_command_with_a_summary():
    done = run("hmr-skel", "--help")
    assert done.returncode == 0
    for name, start in (("inspect", "Show what is in"), ("fit", "Fit SKEL"), ("export", "Turn HMR-SKEL shards")):
        line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [name])
        assert start in line


@pytest.mark.parametrize("script", ["hmr-skel", "beam"])
def test_help_and_version_import_nothing_heavy(script):
    module = {"hmr-skel": "pipelines.command.hmr_skel", "beam": "pipelines.command.beam"}[script]
    heavy = "{'torch', 'apache_beam', 'pyarrow', 'numpy', 'cv2', 'trimesh', 'rich'}"
    for argument in ("--help", "--version"):
        code = f"""
            import sys
            from {module} import main
            try:
                main([{argument!r}])
            except SystemExit as end:
                assert not end.code
            assert not {heavy} & sys.modules.keys(), {heavy} & sys.modules.keys()
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_help_takes_well_under_a_second():
    seconds = []
    for _ in range(3):  # the best of some runs: others use the machine too
        began = time.perf_counter()
        run("hmr-skel", "--version")
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 1.0


def test_unknown_command_is_named_with_a_suggestion():
    done = run("hmr-skel", "inspct", "somewhere")
    assert done.returncode == 2
    assert done.stderr == "hmr-skel: error: no command 'inspct'; did you mean 'inspect'?\n"


@pytest.mark.parametrize("script", ["hmr-skel", "beam"])
def test_no_command_prints_help_and_fails(script):
    done = run(script)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {script}")


def test_input_error_is_one_line_and_exit_code_2(tmp_path):
    done = run("hmr-skel", "inspect", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"hmr-skel: error: {tmp_path}/nowhere: nothing has this name; expected a shard")
    assert done.stderr.count("\n") == 1


def test_what_is_raised_decides_the_exit_status(capsys):
    def raising(error):
        def run():
            raise error

        return run

    assert cli.guarded(lambda: None, "p") == 0
    assert cli.guarded(lambda: 1, "p") == 1
    assert cli.guarded(raising(KeyboardInterrupt()), "p") == 130
    assert cli.guarded(raising(InputError("is\nbroken", file="a.npz", row=3, field="pose")), "p") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "p: error: a.npz, row 3, field 'pose': is broken"
    wrapped = RuntimeError("in a step")
    wrapped.__cause__ = InputError("is broken", file="b.npz")
    assert cli.guarded(raising(wrapped), "p") == 2
    assert capsys.readouterr().err == "p: error: b.npz: is broken\n"
    wrapped = RuntimeError("in a step")
    wrapped.__context__ = KeyboardInterrupt()
    assert cli.guarded(raising(wrapped), "p") == 130
    assert capsys.readouterr().err == "p: interrupted\n"
    with pytest.raises(RuntimeError):  # a fault of ours keeps its traceback
        cli.guarded(raising(RuntimeError("ours")), "p")


@dataclass
class Opts:
    """Options of a command in these tests."""

    input: str = field(positional=True, default="")
    """In."""
    samples_per_shard: int = 7
    """How many."""
    names: list[str] = field(default_factory=list)  # noqa: RUF009
    """Which."""
    fast: bool = field(default=False, action="store_true")
    """Or not."""


def parse(*arguments: str) -> Opts:
    return cli.parse_options(Opts, list(arguments), "prog", "Does things.")


def test_presets_come_from_yaml_and_the_command_line_overrides_them(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("samples-per-shard: 3\nnames: [a, b]\nfast: true\n")
    assert parse("x", "--config", str(preset)) == Opts("x", 3, ["a", "b"], True)
    assert parse("x", f"--config={preset}", "--samples-per-shard", "9", "--names", "c") == Opts("x", 9, ["c"], True)
    assert parse("x") == Opts("x", 7, [], False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("samples_per_shart: 3", "field 'samples_per_shart': no such option; expected samples_per_shard"),
        ("input: x", "field 'input': no such option"),
        ("- 3", "a list at the top; expected lines of option: value"),
        ("a: [", "not YAML"),
        (None, "No such file or directory; expected a YAML file"),
    ],
)
def test_broken_presets_are_named(tmp_path, text, complaint):
    preset = tmp_path / "preset.yaml"
    if text is not None:
        preset.write_text(text)
    with pytest.raises(InputError) as caught:
        parse("x", "--config", str(preset))
    assert str(caught.value).startswith(str(preset))
    assert complaint in str(caught.value)


def test_preset_of_the_wrong_type_ends_with_exit_code_2(tmp_path, capsys):
    preset = tmp_path / "preset.yaml"
    preset.write_text("samples_per_shard: many\n")
    with pytest.raises(SystemExit) as end:
        parse("x", "--config", str(preset))
    assert end.value.code == 2
    assert "invalid int value: 'many'" in capsys.readouterr().err


PIPELINE = """
import sys

def double(x):
    return 2 * x

def main(argv):
    print("name", __name__)
    print("module", double.__module__)
    print("argv", argv)
    return 3
"""


def test_beam_run_imports_a_file_under_its_name_in_its_package(tmp_path):
    package = tmp_path / "outer" / "inner"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "job.py").write_text(PIPELINE)
    done = run("beam", "run", "outer/inner/job.py", "--runner=DirectRunner", "-x", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert done.stdout.split("\n")[:3] == [
        "name outer.inner.job",
        "module outer.inner.job",
        "argv ['--runner=DirectRunner', '-x']",
    ]


def test_beam_run_functions_unpickle_in_another_process(tmp_path):
    """What Beam's multi-processing runner needs: workers start with our environment, not with our sys.path."""
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "__init__.py").touch()
    body = """
import pickle, subprocess, sys

def triple(x):
    return 3 * x

def main(argv):
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(14))"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(triple), stdout=subprocess.PIPE, cwd="/")
    print(done.stdout.decode())
    return done.returncode
"""
    (package / "job.py").write_text(body)
    done = run("beam", "run", str(package / "job.py"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "42"


def test_beam_run_prefers_the_named_checkout_to_an_installed_copy(tmp_path):
    """The user stands in a checkout while the package is installed elsewhere, not editable."""
    checkout = tmp_path / "checkout"
    for package in ("pipelines", "schemas"):
        (checkout / package).mkdir(parents=True)
        (checkout / package / "__init__.py").write_text(f"where = 'checkout {package}'\n")
    job = "import pipelines, schemas\n\ndef main(argv):\n    print(pipelines.where, schemas.where)\n    return 0\n"
    (checkout / "pipelines" / "build_hmr_skel.py").write_text(job)
    done = run("beam", "run", "pipelines/build_hmr_skel.py", cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "checkout pipelines checkout schemas"


def test_beam_run_runs_a_foreign_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nif __name__ == '__main__':\n    print(sys.argv)\n    sys.exit(5)\n")
    done = run("beam", "run", str(script), "--help", "-a")
    assert done.returncode == 5, done.stderr
    assert done.stdout.strip() == str([str(script), "--help", "-a"])


def test_beam_run_reports_input_errors_of_a_pipeline(tmp_path):
    script = tmp_path / "job.py"
    body = "def main(argv):\n    raise InputError('is absent', file='labels.npz')\n"
    script.write_text(f"from schemas import InputError\n\n{body}")
    done = run("beam", "run", str(script))
    assert (done.returncode, done.stderr) == (2, "beam: error: labels.npz: is absent\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "`beam run` without a file"),
        (["run", "missing.py"], "missing.py: no such file; expected a Python file with a pipeline, looked in"),
        (["run", "."], ".: a folder; expected a Python file"),
        (["walk", "x.py"], "no command 'walk'; the only command is `beam run FILE`"),
    ],
)
def test_beam_complains_in_one_line(arguments, complaint, capsys):
    assert beam_cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("beam: error: ")
    assert complaint in error
    assert error.count("\n") == 1


def test_the_build_job_is_found_under_its_package_name():
    assert beam_cli.module_of(ROOT / "pipelines" / "build_hmr_skel.py") == ("pipelines.build_hmr_skel", ROOT)

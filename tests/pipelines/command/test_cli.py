"""The console scripts `hmr-skel` and `beam`, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from pipelines.command import beam as beam_cli
from pipelines.command import hmr_skel as cli
from pipelines.command.option_files import write_options
from pipelines.command.options import Positional, arg, parse_options, parse_row_range
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
    for name, start in (
        ("build", "Turn CameraHMR labels"),
        ("inspect", "Show what is in"),
        ("fit", "Fit SKEL"),
        ("export", "Turn HMR-SKEL shards"),
    ):
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


def test_the_job_is_a_command_that_starts_anywhere(tmp_path):
    done = run("hmr-skel", "build", "--annotations", "absent.npz", "--images", "none", cwd=tmp_path)
    assert done.returncode == 2
    *warned, told = done.stderr.splitlines()
    assert told.startswith("hmr-skel build: error: absent.npz: no such label file")
    assert all("embedded demo body" in line for line in warned)


@dataclass(frozen=True)
class Group:
    """Options that belong together."""

    colour: Literal["red", "blue"] = "red"
    """Which."""
    rate: float = 0.5
    """How fast."""

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise InputError(f"{self.rate} given", field="rate", expected="0 or more")


@dataclass
class Opts:
    """Options of a command in these tests."""

    input: Annotated[Path, Positional, arg(metavar="IN")]
    """In."""
    samples_per_shard: int = 7
    """How many."""
    names: list[str] = field(default_factory=list)
    """Which."""
    fast: bool = False
    """Or not."""
    most: int | None = None
    """No more than this."""
    group: Group = field(default_factory=Group)


def parse(*arguments: str, **more) -> Opts:
    return parse_options(Opts, list(arguments), "prog", "Does things.", **more)


def test_option_files_are_overridden_by_the_command_line(tmp_path):
    file = tmp_path / "preset.yaml"
    file.write_text("samples-per-shard: 3\nnames: [a, b]\nfast: true\nrate: 1e-5\ncolour: blue\nmost: null\n")
    x, blue = Path("x"), Group("blue", 1e-5)
    assert parse("x", "--config", str(file)) == Opts(x, 3, ["a", "b"], True, None, blue)
    line = ("x", f"--config={file}", "--samples-per-shard", "9", "--names", "c", "--no-fast", "--most", "2")
    assert parse(*line, "--colour", "red") == Opts(x, 9, ["c"], False, 2, Group("red", 1e-5))
    assert parse("x") == Opts(x)


def test_words_of_option_files_are_what_they_look_like(tmp_path):
    """Neither dates nor sexagesimal numbers; and what is written as a text comes back as one."""
    file = tmp_path / "preset.yaml"
    file.write_text("input: 2020-01-01\nnames: [1:30, 0x_, 010, '1']\nrate: .5\n")
    found = parse("--config", str(file))
    assert (found.input, found.names, found.group.rate) == (Path("2020-01-01"), ["1:30", "0x_", "010", "1"], 0.5)
    words = [
        "1",
        "-2",
        "1.5",
        ".inf",
        "1.0e+3",
        "1e3",
        "0x10",
        "0o7",
        "089",
        "no",
        "null",
        "~",
        "1:30",
        "2020-01-01",
        "=",
        "",
    ]
    write_options(file, {"names": words})
    assert parse("x", "--config", str(file)).names == words


def test_an_option_file_may_give_the_positional_options(tmp_path):
    file = tmp_path / "preset.yaml"
    file.write_text("input: x.npz\n")
    assert parse("--config", str(file)).input == Path("x.npz")
    assert parse("y.npz", "--config", str(file)).input == Path("y.npz")


def test_presets_are_files_of_a_folder_that_option_files_override(tmp_path):
    (tmp_path / "small.yaml").write_text("samples_per_shard: 3\nrate: 2\n")
    (tmp_path / "mine.txt").write_text("rate: 3\n")
    found = parse("x", "--preset", "small", "--config", str(tmp_path / "mine.txt"), presets=tmp_path)
    assert (found.samples_per_shard, found.group.rate) == (3, 3.0)
    with pytest.raises(InputError, match="no preset 'large'; expected small"):
        parse("x", "--preset", "large", presets=tmp_path)
    with pytest.raises(InputError, match="preset"):  # a command without presets does not know the word
        parse("x", "--preset", "small")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("samples_per_shart: 3", "field 'samples_per_shart': no such option; expected samples_per_shard"),
        ("samples_per_shard: many", "field 'samples_per_shard': 'many' given; expected int"),
        ("samples-per-shard: true", "field 'samples-per-shard': True given; expected int"),
        ("names: [1]", "field 'names': 1 given; expected str"),
        ("samples-per-shard: 2020-01-01", "'2020-01-01' given; expected int"),
        ("samples-per-shard: 1:30", "'1:30' given; expected int"),
        ("samples-per-shard: 010", "'010' given; expected int"),
        ("most: !!timestamp 1", "not YAML"),
        ("most: !!python/object/apply:os.getpid []", "not YAML"),
        ("most: " + "9" * 5000, " ... given; expected int"),
        ("most: [" + "a," * 50_000 + "]", " ... given; expected int"),
        ("colour: green", "field 'colour': 'green' given; expected red or blue"),
        ("rate: -1", "field 'rate': -1.0 given; expected 0 or more"),
        ("rate: fast", "field 'rate': 'fast' given; expected float"),
        ("- 3", "a list at the top; expected lines of option: value"),
        ("a: [", "not YAML"),
        ("most: 0x_", "'0x_' given; expected int"),
        ("most: \ud83d", "not YAML"),
        ("a: &x [1]\nb: *x", "a YAML alias"),
        ("[" * 10_000, "not YAML"),
        ("# " + "x" * (1 << 20), "longer than any option file"),
        (None, "No such file or directory; expected a YAML file"),
    ],
)
def test_broken_option_files_are_named(tmp_path, text, complaint):
    file = tmp_path / "preset.yaml"
    if text is not None:
        file.write_text(text, "utf-8", "surrogatepass")
    with pytest.raises(InputError) as caught:
        parse("x", "--config", str(file))
    assert str(caught.value).startswith(str(file))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "IN"),
        (("x", "--samples-per-shard", "many"), "--samples-per-shard: invalid literal for int() with base 10: 'many'"),
        (("x", "--colour", "green"), "red"),
        (("x", "--samples-per-shart", "3"), "--samples-per-shart"),
        (("x", "y"), "y"),
        (("x", "--rate", "-1"), "-1.0 given"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments, complaint):
    with pytest.raises(InputError) as caught:
        parse(*arguments)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value) and "│" not in str(caught.value)


def test_arguments_of_others_are_handed_on():
    unknown: list[str] = []
    found = parse("x", "--names", "a", "--runner=DirectRunner", "--direct_num_workers", "2", "--fast", unknown=unknown)
    assert found == Opts(Path("x"), names=["a"], fast=True)
    assert unknown == ["--runner=DirectRunner", "--direct_num_workers", "2"]


def test_help_speaks_as_a_person_would(capsys):
    with pytest.raises(SystemExit) as end:
        parse("--help")
    assert not end.value.code
    said = " ".join(capsys.readouterr().out.split())
    for words in ("IN", "--samples-per-shard N", "--fast, --no-fast", "--most N", "--rate X", "--config FILE"):
        assert words in said, words
    assert "preset" not in said


def test_row_ranges_are_slices():
    assert parse_row_range("") == parse_row_range(":") == slice(None, None)
    assert (parse_row_range("2:"), parse_row_range(":5"), parse_row_range("-3:-1")) == (
        slice(2, None),
        slice(None, 5),
        slice(-3, -1),
    )
    assert parse_row_range("1::3", step=True) == slice(1, None, 3)
    for text in ("3", "a:b", "1:2:3", "1.5:2"):
        with pytest.raises(InputError, match="expected START:STOP"):
            parse_row_range(text)


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

"""The trainer as its users run it: interrupted, continued, spread over processes, and fed with nonsense."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import cv2
import pytest
import torch
from tqdm import tqdm
from written_shards import label_columns, write_shard

from fitting import SKEL
from pipelines.command.option_files import write_options
from pipelines.command.options import option_values, parse_options
from schemas import InputError
from train import SKELCF, load_checkpoint
from train.command import main as command_train
from train.config import VARIANTS, LossConfig, NetworkConfig, variant
from train.data.augmentation_config import AugmentationConfig
from train.evaluate.command import main as command_evaluate
from train.network.checkpoints import run_checkpoints
from train.options import PRESETS, TrainOptions
from train.run import state, trainer
from train.run.records import _BAR
from train.run.resuming import PAST, WITHOUT_EFFECT
from train.run.state import learning_rate
from train.run.trainer import train

SMALL = [
    *("--backbone", "tiny", "--refinement-layers", "1", "--heads", "1", "--head-dim", "8", "--mlp-dim", "16"),
    *(
        "--hidden-dim",
        "16",
        "--batch",
        "4",
        "--epochs",
        "2",
        "--workers",
        "0",
        "--part",
        "all",
        "--precision",
        "float32",
    ),
    *("--device", "cpu", "--learning-rate", "1e-4", "--evaluate-people", "0", "--panel-steps", "0"),
]


HSMR_LACKS = {"architecture", "camera", "coarse", "stepwise", "looped", "hidden_dim", "maps"}
HSMR_LACKS |= {"refinement", "layer_supervision", "places"}
"""Settings that its variant sets, or that its architecture has no use for."""

HMR_SKEL = Path(sys.executable).with_name("hmr-skel")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """15 people in two shards: three steps of 4 and one of 3."""
    folder = tmp_path_factory.mktemp("shards")
    for number, count in enumerate((8, 7)):
        columns = label_columns(count, seed=number, first_row=20 * number)
        columns["converged"][:], columns["vertex_error_mm"][:] = True, 5
        write_shard(folder, f"{number:06d}", columns)
    return folder


def options(shards, output, *more: str) -> TrainOptions:
    return parse_train(arguments(shards, output, *more))


def parse_train(given: list[str]) -> TrainOptions:
    return parse_options(TrainOptions, given, "train", "", presets=PRESETS)


def arguments(shards, output, *more: str) -> list[str]:
    return ["--shards", str(shards), "--output", str(output), *SMALL, *more]


def parameters(output: Path, which="model") -> dict[str, torch.Tensor]:
    return load_checkpoint(run_checkpoints(output)[-1], which).state_dict()


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert train(options(shards, output)) == 0
    assert [path.name for path in run_checkpoints(output)] == ["checkpoint-00000008.pt"]
    return output


def assert_same(one: Path, other: Path) -> None:
    for which in ("model", "ema"):
        first, second = parameters(one, which), parameters(other, which)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def start_process(shards, output, *more: str, torchrun: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-m", "train.command", *arguments(shards, output, *more)]
    if torchrun:
        run = [*("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={torchrun}", "--no-python")]
        command = [sys.executable, *run, str(HMR_SKEL), "train", *arguments(shards, output, *more)]
    repository = str(Path(__file__).parents[3])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": repository}
    pipe = subprocess.PIPE
    # In a folder where somebody else's train.py lies.
    (elsewhere := shards / "elsewhere").mkdir(exist_ok=True)
    (elsewhere / "train.py").write_text("raise SystemExit('not this one')")
    where = elsewhere if torchrun else repository
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, cwd=where)


def wait_for(path: Path, process: subprocess.Popen | None = None, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------------ interruption


def test_a_run_killed_in_mid_epoch_and_resumed_reaches_the_same_parameters_bit_for_bit(shards, undisturbed, tmp_path):
    process = start_process(shards, tmp_path, "--checkpoint-steps", "1", "--workers", "1")
    try:
        wait_for(tmp_path / "checkpoint-00000002.pt", process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = int(run_checkpoints(tmp_path)[-1].stem[-8:])
    assert left < 8
    assert train(options(shards, tmp_path)) == 0
    assert_same(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_ends_a_run_after_the_step_with_a_checkpoint(shards, undisturbed, tmp_path, number):
    def stop():
        wait_for(tmp_path / "checkpoint-00000001.pt")
        for process in [*multiprocessing.active_children(), multiprocessing.current_process()]:
            os.kill(process.pid, number)

    before = signal.getsignal(number)
    threading.Thread(target=stop).start()
    assert train(options(shards, tmp_path, "--checkpoint-steps", "1", "--workers", "1")) == 128 + number
    left = int(run_checkpoints(tmp_path)[-1].stem[-8:])
    assert 0 < left < 8
    assert train(options(shards, tmp_path)) == 0
    assert_same(tmp_path, undisturbed)
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_a_run_at_once(shards, tmp_path):
    process = start_process(shards, tmp_path, "--checkpoint-steps", "1", "--workers", "1", "--epochs", "10000")
    try:
        wait_for(tmp_path / "checkpoint-00000002.pt", process)
        while process.poll() is None:  # the two must come within one step
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "Ctrl-C again" in errors
    assert "KeyboardInterrupt" in errors or process.returncode == 130


def test_checkpoints_hold_tensors_and_plain_values_and_the_newest_are_kept(shards, tmp_path):
    train(options(shards, tmp_path, "--checkpoint-steps", "1", "--keep", "2", "--steps", "5"))
    assert [path.name[-6:] for path in run_checkpoints(tmp_path)] == ["004.pt", "005.pt"]
    assert not list(tmp_path.glob(".*"))
    tree = torch.load(run_checkpoints(tmp_path)[-1], weights_only=True)
    assert tree["training"]["epoch"] == 1 and tree["training"]["step"] == 1
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_finished_run_is_left_as_it_is(shards, undisturbed):
    before = run_checkpoints(undisturbed)[-1].read_bytes()
    assert train(options(shards, undisturbed)) == 0
    assert run_checkpoints(undisturbed)[-1].read_bytes() == before


def test_a_run_is_not_continued_with_another_order_of_people(shards, undisturbed):
    for more, field in ((["--batch", "3"], "global batch"), (["--seed", "1"], "seed"), (["--limit", "9"], "shards")):
        with pytest.raises(InputError, match=f"{field}.*another --output"):
            train(options(shards, undisturbed, *more))


@pytest.fixture
def begun(shards, tmp_path) -> Path:
    """A run of five steps that can go on."""
    assert train(options(shards, tmp_path / "run", "--steps", "5")) == 0
    return tmp_path / "run"


def test_options_that_differ_on_resume_are_told_with_whether_they_count(shards, begun, caplog):
    more = ("--learning-rate", "2e-4", "--weight-decay", "0.5", "--log-steps", "3", "--initialise", "x.pt")
    assert train(options(shards, begun, "--steps", "5")) == 0
    said = lambda: [r.getMessage() for r in caplog.records if r.name == "train.run.resuming"]  # noqa: E731
    assert not said()  # nothing differs, nothing is said
    with pytest.MonkeyPatch.context() as patch:
        plain = lambda given, device: state.first_network(replace(given, initialise=""), device)  # noqa: E731
        patch.setattr(trainer, "first_network", plain)
        assert train(options(shards, begun, "--steps", "6", *more)) == 0
    told = said()
    assert len(told) == 3, told
    for wanted in ("steps 6 (was 5)", "learning_rate 0.0002 (was 0.0001)", "weight_decay 0.5 (was 0.0001)"):
        assert wanted in told[0]
    assert "count from here on" in told[0] and "batch" not in told[0]
    assert "the run has begun: initialise x.pt" in told[1]
    assert "change nothing that is learnt: log_steps 3 (was 20)" in told[2]
    groups = torch.load(run_checkpoints(begun)[-1], weights_only=True)["training"]["optimiser"]["param_groups"]
    assert groups[0]["weight_decay"] == 0.5 and groups[0]["lr"] == pytest.approx(2e-4)


def test_every_option_has_its_place_among_those_that_count_or_do_not():
    names = option_values(TrainOptions()).keys()
    assert names >= WITHOUT_EFFECT | PAST and not WITHOUT_EFFECT & PAST
    assert {"learning_rate", "joints_2d", "scale_change", "body_models"} <= names - WITHOUT_EFFECT - PAST


@pytest.mark.parametrize("more, field", [(("--steps", "3"), "steps"), (("--epochs", "1"), "epochs")])
def test_an_end_before_what_is_done_is_refused(shards, begun, more, field):
    before = (begun / "options.yaml").read_text()
    with pytest.raises(InputError, match=rf"5 steps are done already.*--{field}|--{field}.*5 steps are done already"):
        train(options(shards, begun, *more))
    assert (begun / "options.yaml").read_text() == before


def test_a_run_of_another_network_is_told_in_one_sentence(shards, begun):
    for more, said in (
        (("--heads", "2"), "heads 1 instead of 2"),
        (("--variant", "no-refinement"), "stepwise True instead of False"),
    ):
        with pytest.raises(InputError, match=f"another network: {said}") as error:
            train(options(shards, begun, *more))
        assert len(str(error.value).replace(str(begun), "")) < 200
    with pytest.raises(InputError, match="another network: refinement_layers 1 instead of 2"):
        train(
            options(
                shards,
                begun.parent / "new",
                "--initialise",
                str(run_checkpoints(begun)[-1]),
                "--refinement-layers",
                "2",
            )
        )


def test_a_run_that_trains_its_encoder_at_another_rate_goes_on_and_one_that_begins_to_is_refused(shards, tmp_path):
    run = tmp_path / "run"
    assert train(options(shards, run, "--steps", "5", "--encoder-rate", "0.1")) == 0
    with pytest.raises(InputError, match=r"trained other parameters.*--encoder-rate|--encoder-rate.*trained other"):
        train(options(shards, run, "--steps", "6", "--encoder-rate", "0"))
    assert train(options(shards, run, "--steps", "6", "--encoder-rate", "0.3")) == 0
    groups = torch.load(run_checkpoints(run)[-1], weights_only=True)["training"]["optimiser"]["param_groups"]
    assert [group["share"] for group in groups] == [1.0, 0.3]
    assert groups[1]["lr"] == pytest.approx(0.3 * groups[0]["lr"])


# ---------------------------------------------------------------------------------------------------------- processes


@pytest.mark.skipif(not HMR_SKEL.exists(), reason="the package's commands are not installed")
def test_two_processes_take_the_steps_of_one_with_the_same_global_batch(shards, undisturbed, tmp_path):
    process = start_process(shards, tmp_path / "two", "--batch", "2", torchrun=2)
    assert train(options(shards, tmp_path / "parts", "--batch", "2", "--accumulate", "2")) == 0
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]
    one = parameters(undisturbed)
    torch.manual_seed(0)
    start = SKELCF(load_checkpoint(run_checkpoints(undisturbed)[-1]).config).state_dict()
    for output in (tmp_path / "two", tmp_path / "parts"):
        other = parameters(output)
        apart = max(float((one[name] - other[name]).abs().max()) for name in one)
        assert apart < 1e-5
    assert max(float((one[name] - start[name]).abs().max()) for name in one) > 2e-4  # they did move


# --------------------------------------------------------------------------------------------------- what can happen


def spoil(monkeypatch, steps) -> None:
    """The loss is not a number in these steps."""
    calls, real = iter(range(1000)), trainer.total

    def total(*args):
        loss = real(*args)
        return loss._replace(total=loss.total * float("nan")) if next(calls) in steps else loss

    monkeypatch.setattr(trainer, "total", total)


def test_a_step_whose_loss_is_not_finite_is_skipped_and_counted(shards, tmp_path, monkeypatch):
    spoil(monkeypatch, {1, 2})
    assert train(options(shards, tmp_path, "--steps", "4")) == 0
    state = torch.load(run_checkpoints(tmp_path)[-1], weights_only=True)["training"]
    assert (state["skipped"], state["updates"]) == (2, 2)
    assert all(torch.isfinite(value).all() for value in parameters(tmp_path).values())


def test_too_many_such_steps_stop_the_run(shards, tmp_path, monkeypatch):
    spoil(monkeypatch, set(range(100)))
    with pytest.raises(InputError, match="not finite in 3 steps"):
        train(options(shards, tmp_path, "--nonfinite-limit", "3"))


def test_curves_pictures_and_measures_on_held_out_people_are_written(shards, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    more = ("--part", "training", "--held-out", "0.4", "--evaluate-people", "2", "--panel-steps", "2", "--limit", "4")
    more += ("--log-steps", "1", "--peak-tflops", "0.1")
    assert train(options(shards, tmp_path, *more)) == 0  # an epoch is one step
    written = EventAccumulator(str(tmp_path))
    written.Reload()
    scalars, images = written.Tags()["scalars"], written.Tags()["images"]
    expected = {"loss/total", "loss/final/joints_2d", "loss/coarse/betas", "optimiser/learning_rate"}
    expected |= {"time/people_per_second", "time/share_waiting_for_data", "held_out/mpjpe_mm", "held_out/pck_0.05"}
    expected |= {"mean_person/mpjpe_mm", "time/model_flop_utilisation"}
    assert expected <= set(scalars) and images == ["people"]
    assert [event.step for event in written.Scalars("loss/total")] == [1, 2]
    assert {path.name for path in (tmp_path / "panels").iterdir()} == {"00000000.png", "00000002.png"}
    assert (tmp_path / "before_after.png").stat().st_size > 10_000
    assert len(written.Scalars("mean_person/mpjpe_mm")) == 1
    assert all(0 < event.value < 1 for event in written.Scalars("time/model_flop_utilisation"))
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 10
    assert parse_train(["--config", str(tmp_path / "options.yaml")]).data.limit == 4


def test_body_models_are_loaded_once(shards, tmp_path, monkeypatch):
    loaded, load = [], SKEL.load.__func__
    monkeypatch.setattr(SKEL, "load", classmethod(lambda *args, **more: loaded.append(args) or load(*args, **more)))
    more = ("--part", "training", "--held-out", "0.4", "--evaluate-people", "2", "--panel-steps", "1", "--limit", "2")
    assert train(options(shards, tmp_path, *more)) == 0
    assert (tmp_path / "before_after.png").exists() and len(loaded) == 1


def test_the_bar_fits_80_columns():
    screen = io.StringIO()
    bar = tqdm(total=1_234_567, initial=1_234_560, bar_format=_BAR, file=screen, ncols=80, mininterval=0)
    bar.set_postfix_str("loss 123.4567, 12,345/s, 100% wait")
    bar.start_t -= 5e5
    bar.refresh()
    shown = screen.getvalue().split("\r")[-1]
    assert len(shown) <= 80 and shown.endswith("100% wait") and "1234560/1234567" in shown


def scalars(folder: Path, name: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = EventAccumulator(str(folder))
    written.Reload()
    return [event.value for event in written.Scalars(name)]


def test_losses_are_told_as_means_over_the_steps_since_they_were_last_told(shards, tmp_path):
    for steps in (1, 4):
        train(options(shards, tmp_path / str(steps), "--steps", "4", "--log-steps", str(steps)))
    for name in ("loss/total", "loss/final/joints_3d"):
        each, together = scalars(tmp_path / "1", name), scalars(tmp_path / "4", name)
        assert len(each) == 4 and len(together) == 1
        assert together[0] == pytest.approx(sum(each) / 4, rel=1e-5) and max(each) > 1.01 * min(each)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_and_is_measured_by_one_command_each(shards, tmp_path, capsys, name):
    more = ("--variant", name, "--steps", "1", "--query-dim", "16", "--refinement-layers", "2", "--limit", "4")
    assert command_train(arguments(shards, tmp_path, *more)) == 0
    network = load_checkpoint(run_checkpoints(tmp_path)[-1])
    assert network.config == variant(name, options(shards, tmp_path, *more).network)[0]
    measured = ["--shards", str(shards), "--limit", "2", "--workers", "0", "--output", str(tmp_path / "measured.json")]
    assert command_evaluate([str(tmp_path), *measured, "--device", "cpu"]) == 0
    numbers = json.loads((tmp_path / "measured.json").read_text())
    assert numbers["people"] == 2 and 0 < numbers["pa_mpjpe_mm"] <= numbers["mpjpe_mm"] < 3000


def test_the_readme_lists_the_variants():
    readme = (Path(__file__).parents[3] / "train" / "README.md").read_text()
    table = readme.partition("(`--variant`)")[2].partition("##")[0]
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == sorted(VARIANTS)


def test_bf16(shards, tmp_path):
    assert train(options(shards, tmp_path, "--steps", "1", "--precision", "bf16", "--limit", "2")) == 0
    assert all(value.dtype == torch.float32 for value in parameters(tmp_path).values())


def test_training_can_begin_from_another_runs_weights(shards, undisturbed, tmp_path):
    begun = str(run_checkpoints(undisturbed)[-1])
    train(options(shards, tmp_path, "--steps", "1", "--learning-rate", "0", "--initialise", begun))
    first, second = parameters(undisturbed), parameters(tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---------------------------------------------------------------------------------------------------------- options


def test_learning_rate_warms_up_and_decays():
    plain = TrainOptions(learning_rate=1.0, warmup_epochs=0.5)
    assert [learning_rate(plain, step, 8, 80) for step in (0, 1, 3, 4, 79)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = TrainOptions(learning_rate=1.0, warmup_epochs=0.5, decay="cosine")
    assert learning_rate(cosine, 4, 8, 84) == 1.0
    assert learning_rate(cosine, 44, 8, 84) == pytest.approx(0.5)
    assert learning_rate(cosine, 83, 8, 84) < 0.01


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_and_files_can_be_overridden(preset, tmp_path):
    found = parse_train(["--preset", preset, "--epochs", "7", "--shards", "a", "b"])
    assert (found.epochs, found.data.shards, found.data.part) == (
        7,
        ["a", "b"],
        "all" if preset == "overfit" else "training",
    )
    write_options(tmp_path / "options.yaml", option_values(found))
    assert parse_train(["--config", str(tmp_path / "options.yaml")]) == found


def test_the_papers_settings():
    paper = parse_train(["--preset", "paper"])
    settings = option_values(paper)
    assert paper.network == NetworkConfig(checkpoint_activations=True) and paper.loss == LossConfig()
    expected = {"batch": 64, "epochs": 30, "learning_rate": 1e-5, "weight_decay": 1e-4, "ema": 0.9995, "ema_ramp": 6000}
    expected |= {"gradient_norm": 1.0, "scale_change": 0.1, "colour": 0.2, "extreme_crop": 0.1, "photometric": 0.3}
    expected |= {"rotation": 0.0, "mirror": 0.0, "warmup_epochs": 1.0, "decay": "none", "variant": "skel-cf"}
    expected |= {"distributions": "published", "refinement": 0.1, "layer_supervision": "rotations"}
    assert {name: settings[name] for name in expected} == expected
    hsmr = option_values(parse_train(["--preset", "hsmr"]))
    expected = {"batch": 78, "epochs": 100, "learning_rate": 1e-5, "weight_decay": 1e-4, "variant": "hsmr"}
    expected |= {"joints_2d": 0.01, "parameters": "squared", "rotation": 30.0, "rotation_share": 0.6, "mirror": 0.5}
    assert {name: hsmr[name] for name in expected} == expected
    assert [parse_train(["--preset", p]).network.backbone for p in ("one-gpu", "laptop", "tiny")] == [
        *("h", "s", "movenet")
    ]


@pytest.mark.parametrize("preset, absent", [("paper", {"query_dim", "maps", "places"}), ("hsmr", HSMR_LACKS)])
def test_presets_of_publications_state_everything_that_decides_what_is_learnt(preset, absent):
    """With a word on where it comes from, but for switches of what is not there."""
    text = (PRESETS / f"{preset}.yaml").read_text()
    stated = {line.partition(":")[0].replace("-", "_") for line in text.splitlines() if line[:1].isalpha()}
    decisive = {f.name for kind in (NetworkConfig, LossConfig, AugmentationConfig) for f in fields(kind)}
    decisive |= {"variant", "learning_rate", "warmup_epochs", "decay", "weight_decay", "gradient_norm", "batch"}
    decisive |= {"accumulate", "epochs", "ema", "ema_ramp", "precision", "margin", "encoder_rate"}
    decisive |= {"max_vertex_error_mm", "max_reprojection_error", "verdicts"}
    assert decisive - stated == absent | {"stochastic_depth"}  # the backbone's own
    assert re.search(r"\((paper|released)\)", text) and text.count("# ") > 20


def test_unknown_presets_and_options_are_told(tmp_path):
    with pytest.raises(InputError, match=r"no preset 'huge'.*hsmr, laptop, one-gpu, overfit, paper, tiny"):
        parse_train(["--preset", "huge"])
    (tmp_path / "x.yaml").write_text("learningrate: 1\n")
    with pytest.raises(InputError, match="no such option; expected learning_rate"):
        parse_train(["--config", str(tmp_path / "x.yaml")])
    with pytest.raises(InputError, match="absent"):
        parse_train(["--config", str(tmp_path / "absent.yaml")])

"""Options of `hmr-skel train`; presets/ has values for many of them at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pipelines.command.options import arg
from train.config import VARIANTS, LossConfig, NetworkConfig
from train.data.augmentation_config import AugmentationConfig
from train.data.config import DataConfig

PRESETS = Path(__file__).parent / "presets"


@dataclass
class TrainOptions:
    """Train SKEL-CF on HMR-SKEL shards. On N GPUs: torchrun --nproc-per-node N --no-python hmr-skel train ..."""

    output: Annotated[Path, arg(metavar="DIR")] = Path("train_output")
    """folder for checkpoints, curves and panels; a run found there is continued"""
    variant: Literal[VARIANTS] = "skel-cf"  # type: ignore[valid-type]
    """the paper's ablations and baseline, on top of the network options"""
    initialise: Annotated[str, arg(metavar="FILE")] = ""
    """checkpoint to begin from: a whole network, or a backbone alone (ViTPose)"""
    body_models: Annotated[str, arg(metavar="DIR")] = "demo"
    """folder with the official SMPL and SKEL files and regressors; demo is the embedded body"""
    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda or cuda:N"""
    batch: int = 64
    """people per device and pass"""
    accumulate: int = 1
    """passes per step"""
    epochs: int = 30
    """times that everybody is seen"""
    steps: int = 0
    """stop after this many steps; 0 = when the epochs are over"""
    learning_rate: float = 1e-5
    """after the warm-up"""
    warmup_epochs: float = 1.0
    """the learning rate rises linearly for so long"""
    decay: Literal["none", "cosine"] = "none"
    """what the learning rate does after the warm-up"""
    weight_decay: float = 1e-4
    """of AdamW"""
    encoder_rate: float = 1.0
    """the encoder's learning rate as a share of that of the rest, for one taught before; 0 = it stays"""
    gradient_norm: float = 1.0
    """gradients are shortened to this"""
    ema: float = 0.9995
    """the moving average's decay; n steps after the start it is EMA (1 - exp(-n / EMA_RAMP))"""
    ema_ramp: float = 6000.0
    """see ema"""
    precision: Literal["float32", "bf16"] = "bf16"
    """of the network's matrix products"""
    compile: bool = False
    """compile the network (torch.compile)"""
    workers: int = 8
    """processes per device that read and augment"""
    seed: int = 0
    """of weights, order and augmentation"""
    nonfinite_limit: int = 20
    """stop when so many steps had to be skipped because the loss was not finite"""
    checkpoint_minutes: float = 10.0
    """how often to write a checkpoint"""
    checkpoint_steps: int = 0
    """write one after every so many steps, too; 0 = only by time"""
    keep: int = 3
    """checkpoints that are kept, the newest"""
    peak_tflops: float = 0.0
    """what one device can do in this precision, TFLOP/s, to tell how much of it is used; 0 = not told"""
    log_steps: int = 20
    """steps between scalars for TensorBoard"""
    panel_steps: int = 1000
    """steps between pictures of predictions; 0 = none"""
    evaluate_people: int = 512
    """held-out people on whom the moving average is measured after each epoch; 0 = none"""
    data: DataConfig = field(default_factory=lambda: DataConfig(part="training"))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)

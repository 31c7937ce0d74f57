"""Meshes to be fitted: on the right topology, in metres, and with the SMPL parameters that were found for each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fitting.fit.batches import filled, spread
from fitting.fit.objective import take
from fitting.fit.registration import Registrar, Registration
from schemas import InputError

_HUMAN_SIZES = (0.4, 2.5)
"""Sizes of a trunk against SMPL's template, from small children, curled up, to giants."""

_UNITS = {"millimetres": 1e3, "centimetres": 1e2, "inches": 39.37, "feet": 3.281, "kilometres": 1e-3}
"""Numbers per metre of units that meshes come in."""


def check_topology(shape: tuple[int, ...], vertices: int) -> None:
    """Raise InputError for an array of meshes that is not (B, V, 3) with SMPL's number of vertices."""
    expected = f"(B, {vertices}, 3), SMPL's topology"
    if len(shape) != 3 or shape[2] != 3:
        raise InputError(f"an array of shape {tuple(shape)}", field="vertices", expected=expected)
    if shape[1] != vertices:
        raise InputError(f"meshes of {shape[1]} vertices", field="vertices", expected=expected)


def human_size(trunk_scale: Tensor) -> Tensor:
    """(B,) bool: whether trunks of sizes (B,) against SMPL's may be a human's, in metres."""
    return (trunk_scale > _HUMAN_SIZES[0]) & (trunk_scale < _HUMAN_SIZES[1])


def check_unit(trunk_scale: Tensor) -> None:
    """Raise InputError where most meshes have trunks of sizes (B,) against SMPL's that no human has, with the unit."""
    known = trunk_scale[trunk_scale.isfinite()]
    if len(known) == 0 or bool(human_size(known.median())):
        return
    size = float(known.median())
    near = [name for name, number in _UNITS.items() if _HUMAN_SIZES[0] < size / number < _HUMAN_SIZES[1]]
    looks = f", as if in {near[0]}" if near else ""
    raise InputError(f"bodies of {size:.3g} times SMPL's size{looks}", field="vertices", expected="metres")


@dataclass
class MeshTargets:
    """B meshes on SMPL's topology, which are read a batch at a time."""

    vertices: Any
    """(B, V, 3) m: a tensor, an array, or what gives arrays for slices"""
    betas: Tensor | None
    """(B, 10) of SMPL, where they are known"""
    registrar: Registrar
    template: Tensor
    """(V, 3) m, what stands in for meshes that cannot be used; meshes come to its device and type"""
    _scales: Tensor | None = field(default=None, init=False, repr=False)
    _registered: dict[int, Registration] = field(default_factory=dict, init=False, repr=False)

    def measure(self, batch_size: int, threads: int | None) -> None:
        """Look at the size of every mesh. Raises InputError where most are so large or small that the unit is wrong."""

        def scale_of(first: int) -> Tensor:
            return self.registrar.trunk_scale(self._read(slice(first, first + batch_size)).transpose(1, 2))

        firsts = range(0, max(len(self.vertices), 1), batch_size)
        self._scales = torch.cat(list(spread(scale_of, firsts, self.template.device, threads)))
        check_unit(self._scales)

    def register(self, some: slice) -> tuple[Registration, Tensor, Tensor]:
        """SMPL parameters of some meshes, the meshes (B', 3, V) about their origins, and whether they are `valid`.

        Those that are not, and what a small batch is filled up with, are templates.
        """
        mesh = self._read(some)
        given = [mesh] if self.betas is None else [mesh, self.betas[some].clone()]
        valid = human_size(self._scales[some])
        for values in given:
            valid &= values.flatten(1).isfinite().all(1)
        given, valid = filled(given, valid, self.template, None)
        # Near the origin, where float32 resolves nanometres.
        origin = given[0].mean(1)
        near = _about(given[0], origin)
        found = replace(self.registrar(near, *given[1:]), origin=origin)
        self._registered[some.start] = take(found, torch.arange(len(mesh), device=mesh.device))
        return found, near, valid

    def registered(self) -> Registration:
        """What was found for all meshes, when all were registered."""
        return Registration.concatenate([self._registered[first] for first in sorted(self._registered)])

    def meshes_at(self, rows: Tensor, origin: Tensor) -> Tensor:
        """(B', 3, V) meshes of increasing row numbers (B',), about origins (B', 3)."""
        # Frames that are left out lie in between.
        mesh = self._read(slice(int(rows[0]), int(rows[-1]) + 1))[rows - rows[0]]
        return _about(mesh, origin)

    def _read(self, some: slice) -> Tensor:
        return torch.as_tensor(self.vertices[some]).to(self.template)


def _about(meshes: Tensor, origin: Tensor) -> Tensor:
    return (meshes - origin[:, None]).transpose(1, 2).contiguous()

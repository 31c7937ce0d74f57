"""The page: template, style, script, three.js and the clip in one HTML file that fetches nothing."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from fitting.anatomy import PELVIS
from pipelines.convert.ground import to_ground
from pipelines.draw.angles import BEYOND, LEFT, MIDDLE, RIGHT, angle_panels, span
from pipelines.look.viewer.clips import Clip, View
from pipelines.look.viewer.gltf import TOLERANCE_MM, ClipFrames, clip_glb, pose_clip

_HERE = Path(__file__).parent


def clip_page(clip: Clip) -> str:
    """The page of a clip, as HTML."""
    posed = pose_clip(clip)
    parts = {
        "TITLE": escape(clip.title),
        "STYLE": (_HERE / "page.css").read_text(encoding="utf-8"),
        "LICENSE": escape((_HERE / "three" / "LICENSE").read_text(encoding="utf-8")),
        "CLIP": _script_text(json.dumps(_document(clip, posed), separators=(",", ":"), allow_nan=False)),
        "MODEL": base64.b64encode(clip_glb(clip, posed)).decode(),
        "THREE": (_HERE / "three" / "three.min.js").read_text(encoding="utf-8"),
        "SCRIPT": (_HERE / "page.js").read_text(encoding="utf-8"),
    }
    page = (_HERE / "page.html").read_text(encoding="utf-8")
    pieces = page.split("{{")
    return pieces[0] + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:]))


def _document(clip: Clip, posed: ClipFrames) -> dict[str, Any]:
    """What the script needs besides the model. `captions`, `pelvis`, `facing` and lines have an entry per body."""
    forward = posed.rotations[:, PELVIS, :, 2]
    return {
        "title": clip.title,
        "note": _note(clip, posed),
        "rate": clip.frame_rate,
        "begins": clip.begins,
        "count": clip.count,
        "moments": clip.moments.tolist(),
        "people": clip.people.tolist(),
        "names": list(clip.names),
        "titles": list(clip.titles),
        "captions": clip.captions,
        "pelvis": posed.joints[:, PELVIS].round(4).tolist(),
        "facing": np.arctan2(forward[:, 0], forward[:, 2]).round(3).tolist(),
        "floor": _floors(clip, posed),
        "panels": _panels(clip, posed),
        "colours": {"right": RIGHT, "left": LEFT, "middle": MIDDLE, "beyond": BEYOND},
        "views": [_view(view) for view in clip.views],
    }


def _note(clip: Clip, posed: ClipFrames) -> str:
    text = f"{clip.extent}; body models: {clip.body}; SKEL {clip.skel.gender}"
    off = max(posed.skin.off_mm, posed.bones.off_mm)
    return text + (f"; meshes are drawn to {off:.0f} mm" if off > TOLERANCE_MM else "")


def _floors(clip: Clip, posed: ClipFrames) -> list[float]:
    """Height of the ground at each moment: one for a motion, else under who is lowest; 3 cm below the toes."""
    lowest = posed.joints[..., 1].min(1) - 0.03
    if clip.frame_rate is not None:
        return [round(float(np.quantile(lowest, 0.02)), 4)] * clip.count
    floors = np.full(clip.count, np.inf)
    np.minimum.at(floors, clip.moments, lowest)
    return np.where(np.isfinite(floors), floors, 0).round(4).tolist()


def _panels(clip: Clip, posed: ClipFrames) -> list[dict[str, Any]]:
    """Angles in degrees, in the ground; of separate people one after the other, too."""
    from fitting.body.limits import HUMAN_LIMITS

    rate = clip.frame_rate or 1.0
    degrees, limits = np.zeros((len(clip), len(HUMAN_LIMITS))), np.degrees(HUMAN_LIMITS)
    for person in range(len(clip.names)):
        rows = clip.rows_of(person)
        motion = to_ground(clip.skel, clip.poses[rows], posed.joints[rows, PELVIS], clip.moments[rows], rate, clip.up)
        degrees[rows] = np.degrees(motion.angles)
    # Curves of a film are drawn for one person at a time, other bodies side by side.
    whole = np.arange(len(clip))
    drawn_together = [whole if clip.frame_rate is None else clip.rows_of(p) for p in range(len(clip.names))]
    found = []
    for panel in angle_panels():
        lines = {"middle" if panel.left is None else "right": degrees[:, panel.right]}
        if panel.left is not None:
            lines["left"] = panel.sign * degrees[:, panel.left]
        found.append(
            {
                "title": panel.title,
                "lines": {name: values.round(2).tolist() for name, values in lines.items()},
                "spans": [_ends(lines, rows) for rows in drawn_together],
                "limits": [round(float(v), 2) if np.isfinite(v) else None for v in limits[panel.right]],
            }
        )
    return found


def _ends(lines: dict[str, np.ndarray], rows: np.ndarray) -> list[float]:
    return [round(end, 2) for end in span([values[rows] for values in lines.values()])]


def _view(view: View | None) -> dict[str, Any] | None:
    if view is None:
        return None
    url = f"data:{view.media_type};base64,{base64.b64encode(view.image).decode()}"
    return {"image": url, "size": list(view.size), "camera": view.camera.tolist()}


def _script_text(text: str) -> str:
    """JSON that cannot end the element it stands in."""
    return text.replace("<", "\\u003c")

"""A person predicted in a photograph or in a frame of a film: what `hmr-skel predict` writes (`schemas/README.md`).

Camera frame: x right, y down, z forward, metres; `poses` hold the global orientation in it, `trans` the place. The
angles `angles` are `poses` in degrees, the pelvis's three among them. Image frame: pixels of the picture as it is
seen, that is after `orientation` was applied, origin at the outer corner of the top left pixel; a point (X, Y, Z) is
seen at focal * (X, Y) / Z + principal.

A file's metadata also holds `coordinates` (of the 46: name, unit, and the limits of humans in degrees, null for none)
and `joint_names` (24); `pipelines.files.predictions` adds them, as they are the body model's.
"""

from schemas.camerahmr import KEYPOINT_NAMES, KEYPOINTS
from schemas.fields import Field, arrow_schema

COCO_KEYPOINT_NAMES = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
)
"""The 17 of COCO's keypoint task, as the 44 are called."""

METHODS = ("fit_keypoints", "checkpoint")
"""Where parameters come from: the fit to the detected keypoints, or a network."""

FOCAL_SOURCES = ("option", "checkpoint", "exif", "assumed")
"""Where a focal length comes from: the user, a focal-length network, the picture's EXIF data, or nowhere: the
picture's diagonal."""

SOURCE_FIELDS = [
    Field("source", "str", "picture or film, as it was given or found below a folder that was given"),
    Field("frame", "int64", "frame of the film, from 0; null for pictures", optional=True),
    Field("time_s", "float64", "when the film shows it; null for pictures", (), "s", optional=True),
    Field("person", "int32", "how many people of the same picture or frame come before, best score first"),
    Field("track", "int32", "same number, same person, within one film; null for pictures", optional=True),
]

DETECTION_FIELDS = [
    Field("detector", "str", "who found the person: movenet, transformers:ID or boxes"),
    Field("score", "float32", "the detector's", (), "0 to 1"),
    Field("box", "float32", "left, top, right, bottom", (4,), "px", "image", wide=True),
    Field(
        "detected_keypoints",
        "float32",
        "COCO's 17 and their confidence, which is 0 where a keypoint was not found",
        (len(COCO_KEYPOINT_NAMES), 3),
        "px",
        "image",
        wide=True,
    ),
]

CAMERA_FIELDS = [
    Field("picture_size", "int32", "width and height", (2,), "px", "image"),
    Field("orientation", "int32", "EXIF orientation that was applied, 1 to 8; 1 if there was nothing to turn"),
    Field("focal", "float32", "focal length", (), "px", "image", wide=True),
    Field("focal_source", "str", "where it comes from: " + ", ".join(FOCAL_SOURCES)),
    Field("principal", "float32", "principal point", (2,), "px", "image", wide=True),
]

BODY_FIELDS = [
    Field("method", "str", "where the parameters come from: " + ", ".join(METHODS)),
    Field("checkpoint", "str", "the network, if one was used", optional=True),
    Field("smoothed", "bool", "the frames of the track were fitted together"),
    Field("body_model", "str", "demo for the embedded body, or the folder of the official SKEL"),
    Field("gender", "str", "of the SKEL model"),
    Field("poses", "float32", "SKEL q, global orientation first", (46,), "rad", "camera"),
    Field("betas", "float32", "SKEL shape", (10,), "standard deviations", "model"),
    Field("trans", "float32", "SKEL translation", (3,), "m", "camera", wide=True),
    Field("angles", "float32", "the 46 coordinates by the metadata's `coordinates`", (46,), "deg", "camera", wide=True),
    Field("joints", "float32", "joint centres by the metadata's `joint_names`", (24, 3), "m", "camera", wide=True),
    Field("keypoints_3d", "float32", "the body's 44 keypoints", (KEYPOINTS, 3), "m", "camera", wide=True),
]

QUALITY_FIELDS = [
    Field(
        "reprojection_error_px",
        "float32",
        "mean distance of the body's from the detected keypoints, weighed by confidence; null without keypoints",
        (),
        "px",
        "image",
        optional=True,
        wide=True,
    ),
    Field("converged", "bool", "the fit met its tolerance; null for networks", optional=True),
    Field("verdict", "str", "whether the body can be used: implausible_shape, at_limits, good", optional=True),
]

PREDICTION_FIELDS = SOURCE_FIELDS + DETECTION_FIELDS + CAMERA_FIELDS + BODY_FIELDS + QUALITY_FIELDS

PREDICTION = arrow_schema(
    "prediction",
    "1.0",
    PREDICTION_FIELDS,
    keypoint_names=KEYPOINT_NAMES,
    detected_keypoint_names=COCO_KEYPOINT_NAMES,
    camera_frame="x right, y down, z forward, m; poses include the global orientation",
    image_frame="px of the turned picture, origin at the outer corner of its top left pixel",
)

SKIPPED = arrow_schema(
    "skipped",
    "1.0",
    [
        Field("source", "str", "picture or film, as it was given or found below a folder that was given"),
        Field("frame", "int64", "first frame that is lost; null for the whole file", optional=True),
        Field("problem", "str", "what is wrong with it"),
    ],
)
"""Pictures and films, or their ends, that could not be read."""

"""A person in an HMR-SKEL shard (`schemas/README.md`).

Camera frame: x right, y down, z forward, metres, as SMPL labels in camera space have it. Image frame: pixels of the
full image, origin at the outer corner of the top left pixel. Distances in the quality record are millimetres and
compare SKEL's skin with the SMPL mesh.

The mirrored person is the one that the image shows when it is flipped left-right: pixel column j of an image W px wide
goes to W - 1 - j, a point x to W - x. In the camera's frame this is x -> -x, and in the camera matrix cx -> W - cx
(skew, where there is some, changes its sign); focal lengths, betas and y, z of everything stay. Mirrored angles keep
the human joint limits, which are the same for both sides; other tables' need not be. Of the other fields, with S the
width of the stored image and [a, 0, b] the first row of `crop_affine`:

    box_center      x -> W - x
    crop_affine     b -> S - a W - b           (the stored image is flipped like the full one)
    keypoints_2d    x -> W - x, then the 44 rows in the order `mirrored_keypoints` of the schema's metadata
    keypoints_3d    x -> -x, then the same order

Flipping about the principal point instead (x -> 2 cx - x, cx stays) is the same mirrored camera with another image
window, so that the mirrored parameters hold for it too.
"""

from schemas.camerahmr import KEYPOINT_NAMES, KEYPOINTS, MIRRORED_KEYPOINTS
from schemas.fields import Field, arrow_schema

STAGES = ("start", "lower", "upper", "full")
"""The fit before its first stage and after each of its stages."""

VERDICTS = ("doubtful_source", "implausible_shape", "far", "at_limits", "good")
"""Whether a fit can be used; of several that apply, the first is stored (`fitting.fit.verdict` has the bounds)."""

LABEL_CHECKS = (
    *("unchecked", "consistent", "cam_ext_added", "translation_in_mm", "translation_in_cm"),
    *("translation_from_keypoints", "off_keypoints", "contradicts_keypoints"),
)
"""What comparing a label row's translation and body with its 2D keypoints gave: nothing to compare; agreement; what was
mended, after which they agree; or apart by more than a tenth of the box, or by more than half of it."""

KEYPOINTS_3D_SOURCES = ("label", "smpl", "smpl_joints")
"""Where 3D keypoints come from: the label; the SMPL source and its regressors; the same without the regressor
SMPL_to_J19, so that keypoints 25 to 43 are zero with confidence 0."""

IDENTITY_FIELDS = [
    Field("key", "str", "name of the sample in its tar: data set, image, person"),
    Field("dataset", "str", "name of the label file without -release.npz"),
    Field("label_file", "str", "name of the label file"),
    Field("label_row", "int64", "row in the label file"),
    Field("imgname", "str", "image path as the label file spells it"),
    Field("person", "int32", "how many rows of the same image come before this one in the label file"),
    Field("image_source", "str", "where the pixels came from: tar and member, or file; empty without image"),
    Field("gender", "str", "gender of the SMPL source; SKEL's gender is a property of the data set"),
]

GEOMETRY_FIELDS = [
    Field("image_size", "int32", "width and height of the full image; -1 if unknown", (2,), "px", "image"),
    Field("crop_size", "int32", "width and height of the stored image; 0 without image", (2,), "px", "crop"),
    Field(
        "exif_orientation",
        "int32",
        "EXIF orientation of the image's file, which is not applied: labels are for pixels as stored; 0 without image",
        optional=True,
    ),
    Field("box_center", "float32", "centre of the person's box", (2,), "px", "image", wide=True),
    Field(
        "box_size",
        "float32",
        "side of the square that holds the person's box; 0 if unknown",
        (),
        "px",
        "image",
        wide=True,
    ),
    Field(
        "box_extent",
        "float32",
        "width and height of the person's box, as the label has them; 0 if unknown",
        (2,),
        "px",
        "image",
        optional=True,
        wide=True,
    ),
    Field(
        "cam_int",
        "float32",
        "camera matrix of the full image; zeros if unknown",
        (3, 3),
        "px",
        "image",
        "npz",
        wide=True,
    ),
    Field(
        "crop_affine",
        "float32",
        "full image -> stored image; identity without image",
        (2, 3),
        "px",
        "image",
        "npz",
        wide=True,
    ),
    Field("keypoints_2d", "float32", "keypoints and confidence", (KEYPOINTS, 3), "px", "image", "npz", wide=True),
    Field("keypoints_3d", "float32", "keypoints and confidence", (KEYPOINTS, 4), "m", "camera", "npz", wide=True),
    Field("keypoints_3d_source", "str", ", ".join(KEYPOINTS_3D_SOURCES) + " (without SMPL_to_J19)", optional=True),
]

PARAMETER_FIELDS = [
    Field("poses", "float32", "SKEL q, in the order of the coordinates of the table", (46,), "rad", "camera", "npz"),
    Field("betas", "float32", "SKEL shape", (10,), "standard deviations", "model", "npz"),
    Field("trans", "float32", "SKEL translation", (3,), "m", "camera", "npz", wide=True),
    Field("mirrored_poses", "float32", "SKEL q of the mirrored person", (46,), "rad", "camera", "npz", optional=True),
    Field(
        "mirrored_trans",
        "float32",
        "SKEL translation of the mirrored person: in the image flipped left-right, with cx -> width - cx; betas stay",
        (3,),
        "m",
        "camera",
        "npz",
        optional=True,
        wide=True,
    ),
    Field("smpl_poses", "float32", "source: SMPL axis-angle", (72,), "rad", "camera", "npz"),
    Field("smpl_betas", "float32", "source: SMPL shape", (10,), "standard deviations", "model", "npz"),
    Field("smpl_trans", "float32", "source: SMPL translation", (3,), "m", "camera", "npz", wide=True),
    Field("trans_source", "str", "label, keypoints (solved from the 2D keypoints) or none (zero: position unknown)"),
]

QUALITY_FIELDS = [
    Field("converged", "bool", "the fit met its tolerance within its iterations"),
    Field("iterations", "int32", "iterations of the solver over all stages"),
    Field("vertex_error_mm", "float32", "mean vertex distance", (), "mm"),
    Field("vertex_error_p95_mm", "float32", "95th percentile of the vertex distance", (), "mm"),
    Field("max_vertex_error_mm", "float32", "largest vertex distance", (), "mm"),
    Field("joint_error_mm", "float32", "mean distance of the anatomical joints", (), "mm"),
    Field("stage_vertex_error_mm", "float32", "mean vertex distance: start, lower, upper, full", (4,), "mm"),
    Field("stage_cost", "float32", "objective: start, lower, upper, full", (4,), "m^2"),
    Field("limits_exceeded", "int32", "joint angles outside their limits"),
    Field("worst_limit_excess", "float32", "how far the worst of them is outside", (), "rad"),
    Field("limits_pressed", "int32", "joint angles that lie on a limit"),
    Field("betas_change", "float32", "norm of betas minus transferred betas", (), "standard deviations"),
    Field("betas_pressed", "int32", "betas at the end of their reach", optional=True),
    Field("verdict", "str", "whether the fit can be used: " + ", ".join(VERDICTS), optional=True),
    Field(
        "reprojection_error",
        "float32",
        "median distance of confident 2D keypoints from the projected SMPL joints; -1 if it cannot be told",
        (),
        "box_size",
        "image",
        optional=True,
    ),
    Field("label_check", "str", "what that means: " + ", ".join(LABEL_CHECKS), optional=True),
]

HMR_SKEL_FIELDS = IDENTITY_FIELDS + GEOMETRY_FIELDS + PARAMETER_FIELDS + QUALITY_FIELDS

HMR_SKEL = arrow_schema(
    "hmr_skel", "1.5", HMR_SKEL_FIELDS, keypoint_names=KEYPOINT_NAMES, mirrored_keypoints=MIRRORED_KEYPOINTS
)
"""1.1 has the mirrored parameters, 1.2 verdicts, 1.3 how labels agree with the 2D keypoints and the
box's width and height, 1.4 where the 3D keypoints come from, 1.5 EXIF orientations; older shards are read without
them."""

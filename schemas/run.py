"""What a run says about itself: a shard's statistics, its rejected rows, the data set's manifest.

Statistics and manifest are JSON documents; their Arrow schemas fix names and types. A field whose meaning begins with
"JSON" is a nested value in the document and its text in a table.
"""

from schemas.fields import Field, arrow_schema

ERROR_QUANTILES = (0.5, 0.95, 0.99, 1.0)
"""Quantiles over people that stats and manifest give for each distance."""

QUANTILE_FIELDS = ("vertex_error_mm", "vertex_error_p95_mm", "max_vertex_error_mm", "joint_error_mm")
"""Distances of which stats and manifest give mean and quantiles."""

COUNTED_WORDS = {
    "verdicts": "verdict",
    "label_checks": "label_check",
    "smpl_genders": "gender",
    "keypoints_3d_sources": "keypoints_3d_source",
}
"""Counts over people in stats and manifest, and the HMR_SKEL field whose words they count."""

REJECTS_FIELDS = [
    Field("label_file", "str", "name of the label file"),
    Field("label_row", "int64", "row in the label file"),
    Field("imgname", "str", "image path as the label file spells it", optional=True),
    Field("reason", "str", "one of schemas.REJECT_REASONS"),
    Field("detail", "str", "what exactly was found"),
]

REJECT_REASONS = (
    "non_finite_pose",
    "non_finite_shape",
    "degenerate_box",
    "bad_camera",
    "missing_image",
    "corrupt_image",
    "unreadable_row",
    "no_smpl_parameters",
    "unknown_gender",
    "kid_shape",
    "behind_camera",
    "other_image_size",
)
"""Why a label row can be left out of the shards."""

_PEOPLE_FIELDS = [
    Field("samples", "int64", "people written"),
    Field("converged", "int64", "people whose fit converged"),
    Field("verdicts", "str", "JSON object: verdict -> people", optional=True),
    Field("label_checks", "str", "JSON object: label check -> people", optional=True),
    Field("smpl_genders", "str", "JSON object: gender of the SMPL source -> people", optional=True),
    Field("keypoints_3d_sources", "str", "JSON object: where 3D keypoints come from -> people", optional=True),
    Field("turned_images", "int64", "people whose image has an EXIF orientation, which is not applied", optional=True),
    Field(
        "body_models",
        "str",
        "JSON object: models (demo or files), skel_gender, sha256 of all, keypoint_regressors: name -> sha256",
        optional=True,
    ),
]
"""What a shard and a data set tell alike of the people written."""

SHARD_STATS_FIELDS = [
    Field("shard", "str", "name of the shard without ending"),
    Field("spec_hash", "str", "sha256 of rows, inputs and options that determine the shard's bytes"),
    Field("settings_sha256", "str", "sha256 of what of these is neither rows nor images", optional=True),
    Field("label_rows", "str", "JSON list: label_file, start, stop, step of the rows planned", optional=True),
    Field("images_sha256", "str", "sha256 of the images read; empty without images", optional=True),
    Field(
        "images_modified",
        "str",
        "sha256 of the times, ns, at which the image files were changed; empty if unknown",
        optional=True,
    ),
    Field("tar_sha256", "str", "sha256 of the tar"),
    Field("parquet_sha256", "str", "sha256 of the Parquet file"),
    Field("tar_bytes", "int64", "size of the tar", (), "bytes"),
    Field("rows", "int64", "label rows that were planned for the shard"),
    *_PEOPLE_FIELDS,
    Field("rejects", "str", "JSON object: reason -> rows"),
    Field("errors", "str", "JSON object: distance -> mean and quantiles (p50, ..., max) over people, mm"),
    Field("stage_errors", "str", "JSON object: stage of the fit -> mean vertex distance over people, mm"),
    Field("versions", "str", "JSON object: package -> version"),
    Field("rejected_rows", "str", "JSON list: the rows left out, each as a `rejects` record"),
    Field("document_sha256", "str", "sha256 of this document without this field", optional=True),
]

DATASET_FIELDS = [
    Field("name", "str", "hmr-skel"),
    Field("shards", "str", "JSON list of the shards' statistics, without versions and rejected rows"),
    Field("rows", "int64", "label rows read"),
    *_PEOPLE_FIELDS,
    Field("rejects", "str", "JSON object: reason -> rows"),
    Field("errors", "str", "JSON object: distance -> mean and quantiles (p50, ..., max) over people, mm"),
    Field("stage_errors", "str", "JSON object: stage of the fit -> mean vertex distance over people, mm"),
    Field(
        "dataset_errors",
        "str",
        "JSON object: label file -> samples, and distance -> mean and quantiles over its people, mm",
        optional=True,
    ),
    Field("inputs", "str", "JSON object: label file or body models -> sha256 of the content"),
    Field("options", "str", "JSON object: the resolved options of the run"),
    Field("joint_limits", "str", "JSON object: coordinate -> lowest and highest angle, degrees", optional=True),
    Field("versions", "str", "JSON object: package -> version"),
    Field(
        "part",
        "str",
        "JSON object, of a part of a data set: first, stop: its shards; shards: of how many; plan_sha256",
        optional=True,
    ),
]

REJECTS = arrow_schema("rejects", "1.0", REJECTS_FIELDS)
SHARD_STATS = arrow_schema("shard_stats", "1.5", SHARD_STATS_FIELDS)
DATASET = arrow_schema("dataset", "1.5", DATASET_FIELDS)
"""1.1 of both has verdicts, of the manifest joint limits, 1.2 label checks and genders, 1.3 body models
and where 3D keypoints come from, 1.4 of shards what their rows and images were, of the manifest
which part it is, 1.5 EXIF orientations; older ones are read without them."""

"""Records that cross a boundary: their fields, Arrow schemas, validation and versions."""

from schemas.camerahmr import CAMERAHMR, KEYPOINT_NAMES, KEYPOINTS, MIRRORED_KEYPOINTS
from schemas.documents import check_document, document_problems
from schemas.errors import InputError
from schemas.fields import (
    Columns,
    Field,
    columns_to_table,
    field_dtype,
    field_shape,
    record_name,
    record_version,
    sample_parts,
    samples,
    table_to_columns,
    with_float_width,
)
from schemas.hmr_skel import HMR_SKEL, KEYPOINTS_3D_SOURCES, LABEL_CHECKS, STAGES, VERDICTS
from schemas.prediction import COCO_KEYPOINT_NAMES, PREDICTION, SKIPPED
from schemas.run import COUNTED_WORDS, DATASET, ERROR_QUANTILES, QUANTILE_FIELDS, REJECT_REASONS, REJECTS, SHARD_STATS
from schemas.validation import check_columns, check_schema, describe

__all__ = [
    "CAMERAHMR",
    "COCO_KEYPOINT_NAMES",
    "COUNTED_WORDS",
    "DATASET",
    "ERROR_QUANTILES",
    "HMR_SKEL",
    "KEYPOINTS",
    "KEYPOINTS_3D_SOURCES",
    "KEYPOINT_NAMES",
    "LABEL_CHECKS",
    "MIRRORED_KEYPOINTS",
    "PREDICTION",
    "QUANTILE_FIELDS",
    "REJECTS",
    "REJECT_REASONS",
    "SHARD_STATS",
    "SKIPPED",
    "STAGES",
    "VERDICTS",
    "Columns",
    "Field",
    "InputError",
    "check_columns",
    "check_document",
    "check_schema",
    "columns_to_table",
    "describe",
    "document_problems",
    "field_dtype",
    "field_shape",
    "record_name",
    "record_version",
    "sample_parts",
    "samples",
    "table_to_columns",
    "with_float_width",
]

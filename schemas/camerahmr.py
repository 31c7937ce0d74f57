"""A row of a CameraHMR label file, after its spellings have been brought to one."""

from schemas.fields import Field, arrow_schema

OPENPOSE_NAMES = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
    *("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel"),
)
"""The first 25 keypoints."""

EXTRA_NAMES = (
    *("right_ankle_lsp", "right_knee_lsp", "right_hip_lsp", "left_hip_lsp", "left_knee_lsp", "left_ankle_lsp"),
    *("right_wrist_lsp", "right_elbow_lsp", "right_shoulder_lsp", "left_shoulder_lsp", "left_elbow_lsp"),
    *("left_wrist_lsp", "neck_lsp", "head_top_lsp", "pelvis_mpii", "thorax_mpii"),
    *("spine_h36m", "jaw_h36m", "head_h36m"),
)
"""The other 19, as the data sets LSP, MPII and Human3.6M define them."""

KEYPOINT_NAMES = OPENPOSE_NAMES + EXTRA_NAMES
"""All 44."""

KEYPOINTS = len(KEYPOINT_NAMES)

MIRRORED_KEYPOINTS = [
    KEYPOINT_NAMES.index(
        name.replace("left_", "right_") if name.startswith("left_") else name.replace("right_", "left_")
    )
    for name in KEYPOINT_NAMES
]
"""The keypoint on the other side of the body, or the same."""

CAMERAHMR_FIELDS = [
    Field("imgname", "str", "image path as the label file spells it"),
    Field("center", "float32", "centre of the person's box", (2,), "px", "image"),
    Field("scale", "float32", "width and height of the person's box divided by 200", (2,), "200 px", "image"),
    Field("pose_cam", "float32", "SMPL pose: global orientation, then 23 joints, axis-angle", (72,), "rad", "camera"),
    Field("shape", "float32", "betas of the neutral SMPL", (10,), "standard deviations", "model"),
    Field("cam_int", "float32", "camera matrix", (3, 3), "px", "image"),
    Field("gtkps", "float32", "keypoints and their confidence", (KEYPOINTS, 3), "px", "image"),
    Field("trans_cam", "float32", "translation of SMPL", (3,), "m", "camera", optional=True),
    Field("keypoints3d", "float32", "keypoints and their confidence", (KEYPOINTS, 4), "m", "camera", optional=True),
    Field("gender", "str", "gender of the SMPL model; neutral if absent", optional=True),
]

CAMERAHMR = arrow_schema("camerahmr", "1.0", CAMERAHMR_FIELDS)

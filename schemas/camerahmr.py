"""A row of a CameraHMR label file, after its spellings have been brought to one (DESIGN section 5)."""

from schemas.fields import Field, arrow_schema

KEYPOINTS = 44
"""25 OpenPose keypoints, then 19 of LSP, MPII and H36M."""

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

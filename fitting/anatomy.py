"""What the joints and coordinates of the two models are called, and which joint hangs on which.

Order and names are those of the SMPL and SKEL 1.1.1 files (`schemas/README.md` lists the 46 coordinates).
"""

from __future__ import annotations

JOINTS = 24
COORDINATES = 46

SMPL_JOINTS = (
    *("pelvis", "l_hip", "r_hip", "spine1", "l_knee", "r_knee", "spine2", "l_ankle"),
    *("r_ankle", "spine3", "l_foot", "r_foot", "neck", "l_collar", "r_collar", "head"),
    *("l_shoulder", "r_shoulder", "l_elbow", "r_elbow", "l_wrist", "r_wrist", "l_hand", "r_hand"),
)
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

SKEL_JOINTS = (
    *("pelvis", "femur_r", "tibia_r", "talus_r", "calcn_r", "toes_r", "femur_l", "tibia_l"),
    *("talus_l", "calcn_l", "toes_l", "lumbar_body", "thorax", "head", "scapula_r", "humerus_r"),
    *("ulna_r", "radius_r", "hand_r", "scapula_l", "humerus_l", "ulna_l", "radius_l", "hand_l"),
)
SKEL_PARENTS = (-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 12, 14, 15, 16, 17, 12, 19, 20, 21, 22)

PELVIS, FEMUR_R, TIBIA_R, TALUS_R, CALCN_R, TOES_R, FEMUR_L, TIBIA_L, TALUS_L, CALCN_L, TOES_L = range(11)
LUMBAR, THORAX, HEAD = 11, 12, 13
SCAPULA_R, HUMERUS_R, ULNA_R, RADIUS_R, HAND_R, SCAPULA_L, HUMERUS_L, ULNA_L, RADIUS_L, HAND_L = range(14, 24)

COORDINATES_PER_JOINT = (3, 3, 1, 1, 1, 1, 3, 1, 1, 1, 1, 3, 3, 3, 3, 3, 1, 1, 2, 3, 3, 1, 1, 2)

COORDINATE_NAMES = (
    *("pelvis_tilt", "pelvis_list", "pelvis_rotation"),
    *("hip_flexion_r", "hip_adduction_r", "hip_rotation_r", "knee_angle_r", "ankle_angle_r", "subtalar_angle_r"),
    *("mtp_angle_r", "hip_flexion_l", "hip_adduction_l", "hip_rotation_l", "knee_angle_l", "ankle_angle_l"),
    *("subtalar_angle_l", "mtp_angle_l", "lumbar_bending", "lumbar_extension", "lumbar_twist", "thorax_bending"),
    *("thorax_extension", "thorax_twist", "head_bending", "head_extension", "head_twist"),
    *("scapula_abduction_r", "scapula_elevation_r", "scapula_upward_rot_r", "shoulder_r_x", "shoulder_r_y"),
    *("shoulder_r_z", "elbow_flexion_r", "pro_sup_r", "wrist_flexion_r", "wrist_deviation_r"),
    *("scapula_abduction_l", "scapula_elevation_l", "scapula_upward_rot_l", "shoulder_l_x", "shoulder_l_y"),
    *("shoulder_l_z", "elbow_flexion_l", "pro_sup_l", "wrist_flexion_l", "wrist_deviation_l"),
)

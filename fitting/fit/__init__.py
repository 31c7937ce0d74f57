"""The fit: from SMPL parameters to SKEL parameters, hierarchical, batched, with each person on a course of his own."""

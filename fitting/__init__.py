"""SMPL and SKEL body models and the fit from one to the other."""

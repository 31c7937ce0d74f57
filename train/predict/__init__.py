"""From a photograph to SKEL."""

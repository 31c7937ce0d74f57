"""Pictures of bodies: rays, overlays on photographs, contact sheets."""

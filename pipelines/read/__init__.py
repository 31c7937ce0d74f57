"""What users bring: label files and images in the layouts of the field."""

"""Demo data: rendered people with known truth on the embedded body."""

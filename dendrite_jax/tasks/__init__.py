"""Tasks with an embedded model."""

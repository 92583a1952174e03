"""The edge: one file per format."""

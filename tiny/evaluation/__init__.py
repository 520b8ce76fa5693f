"""Scores generated clips of the shapes set: an evaluation network, metrics, and the report."""

"""Scoring generated clips of the shapes set: an evaluation network of its own, metrics, and the report."""

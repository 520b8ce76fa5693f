"""Recordings of the program's numbers, so that a refactor can be shown to change none of them."""

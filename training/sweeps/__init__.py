"""Sweeps of runs.

config.py   settings, and the commands that they stand for
jobs.py     the processes of the runs
table.py    means and spreads of what finished runs have written
"""

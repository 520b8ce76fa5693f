"""Benchmarks of video creation in UVCBench's layout: from the index to tables and pages.

index.py        the rows of a benchmark, and what is wrong with others
samples.py      a row's control, mask and references at the size of its video
generate.py     the videos that are missing; makers.py: our networks, diffusers' pipeline
scores.py       our measures of a video: control.py, motion.py, reference.py
judge.py        ratings of a vision-language model
vbench.py       VBench's dimensions, computed by its program
statistics.py   means, and intervals of paired differences
tables.py       Markdown and JSON
pages.py        the gallery and the blind page; study.py: the table of the ratings
"""

"""What every benchmark shares: how is measured, on what, against whom, and how it is told.

A program beside this folder asks one question and says what its contenders do; everything else is
here. `rounds` is the one place for timing, interleaving and medians, `machine` the one for what it
ran on, `findings` for what came out, `tables`, `plots` and `results` for the three ways to show it.

It is imported as ``measuring``, since Python puts a program's own folder on the path:
``python benchmarks/events.py`` works from anywhere and needs nothing set.
"""

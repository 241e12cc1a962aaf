"""One file for each command, or for a few that belong together.

Their modules import typer only; what a command works with is imported when it runs.
"""

"""The demo: one whole installation on real text, from an analysis job to the readers' answers.

It uses nothing that a user does not have: settings, a producer, and the command line's own roles
as child processes. Only the fault of ``--fail`` is its own, as a kind that the demo declares.
"""

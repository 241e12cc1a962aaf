"""Readers: from a release to snapshots in the memory of a serving process.

Never talks to a rebuilder: what it wants to know is in the release.
"""

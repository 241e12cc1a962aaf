"""Builds: events → due components → build → verify → release → reload message.

Never talks to a reader: what it has to say is in the release.
"""

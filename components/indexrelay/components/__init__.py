"""What is built: the contract of a kind, and one file per kind.

A kind meets the rest only in files; nothing in here builds, releases or reloads by itself.
"""

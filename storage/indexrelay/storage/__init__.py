"""Where it is kept: the catalog (SQL) and the artifacts (blobs, versions, releases).

These two are the truth. Nothing in here knows of Redis, or of what a component's files mean.
"""

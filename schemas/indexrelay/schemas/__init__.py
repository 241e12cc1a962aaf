"""What is said: events, definitions, versions, releases, results, settings. Pydantic models only.

Nothing in here opens a file, a socket or a database, but for the settings file and the files that a
test arms failpoints with.
"""

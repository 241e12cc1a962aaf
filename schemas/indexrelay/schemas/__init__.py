"""What is said: events, definitions, versions, releases, results, settings. Pydantic models only.

Nothing in here opens a file (but the settings file, and what a test arms a failpoint with), a socket
or a database.
"""

"""People: the command line and the demo.

Only here are settings read, logs set up and processes started for a person.
"""

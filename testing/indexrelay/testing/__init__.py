"""Users' tests: a pipeline on fakeredis, with injected time and no threads.

For tests only; nothing else imports it.
"""

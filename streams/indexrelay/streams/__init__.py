"""How it travels: Redis connections, streams, groups, cursors, leases, presence, Lua scripts.

Nothing in here knows what an event means, and nothing in Redis is the truth about anything.
"""

"""The service for agents, by the Model Context Protocol (MCP): tools over the HTTP API.

There is no second way to the entries. Each tool is a request of the HTTP API (`api`), in this
process or to a reader that runs, so whatever holds there holds here: tokens and tenants, limits,
filters, freshness, writes. `tools` says what can be called and `server` speaks the protocol, over
`stdio` to the program that started this process, or over `http` at ``/mcp`` of a reader.

It takes the extra ``mcp``.
"""

from indexrelay.schemas.errors import see_installed

see_installed("httpx", "mcp", "mcp_types", "starlette")

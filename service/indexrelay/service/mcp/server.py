"""The protocol: lists tools and resources, runs calls, and says what is wrong with them.

Whatever a model can put right is a result with ``isError``, which it reads: arguments that are no
such, a request that the API refuses, a reader that does not answer. Errors of the protocol are left
for what a program did: a resource that does not exist. A fault of ours says no more than that, and
is in the log.
"""

import json
import logging
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final, TypeAlias

import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from indexrelay.components.errors import InvalidQueryError
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.loggers import get_logger
from indexrelay.service.bodies import checked
from indexrelay.service.client.answers import ReaderError
from indexrelay.service.mcp.api import Api
from indexrelay.service.mcp.tools import MAX_RESULT_CHARACTERS, TOOLS, ToolDefinition

log = get_logger(__name__)

Context: TypeAlias = ServerRequestContext[Any, Any]
"""Of one message; over HTTP with the request that it came with."""
ALL: Final = "indexrelay://collections"
_JSON: Final = "application/json"
_INSTRUCTIONS: Final = (
    "Collections of entries (text, payload, embedding) that several agents and programs share. "
    "Call `status` first, or read the resource indexrelay://collections: it lists the collections, "
    "their filterable fields, and the components that answer for each. Then `search` a component. "
)
_READ_ONLY: Final = "Nothing can be written here."
_WRITABLE: Final = (
    "`remember` writes entries and `forget` deletes them, for everybody who uses the collection."
)


def mcp_server(
    *,
    api_of: Callable[[Context], Api],
    may_write: Callable[[Context], bool],
    with_writes: bool,
) -> "Server[Any]":
    """A server of the tools and resources.

    Args:
        api_of: who asks the HTTP API for a call.
        may_write: whether the tools that write are listed to whoever asks; the API decides what
            comes of a call.
        with_writes: whether they are listed to anybody.
    """
    logging.getLogger("mcp").setLevel(logging.WARNING)  # it tells of every request
    named = {tool.name: tool for tool in TOOLS if with_writes or not tool.writes}

    async def list_tools(context: Context, _asked: Any) -> types.ListToolsResult:
        shown = [tool for tool in named.values() if not tool.writes or may_write(context)]
        return types.ListToolsResult(tools=[_listed(tool) for tool in shown])

    async def call_tool(
        context: Context, asked: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = named.get(asked.name)
        if tool is None:
            return _error(f"there is no tool {asked.name!r:.100}; there is {', '.join(named)}")

        async def run() -> dict[str, Any]:
            arguments = checked(asked.arguments or {}, tool.arguments)
            return await tool.run(api_of(context), arguments)

        return await _told(tool.name, run)

    async def list_resources(context: Context, _asked: Any) -> types.ListResourcesResult:
        listed = await _collections(api_of(context))
        every = types.Resource(
            uri=ALL,
            name="collections",
            title="All collections",
            description="Dimension, filterable fields, entries and components of each collection",
            mime_type=_JSON,
        )
        return types.ListResourcesResult(
            resources=[every, *(_resource(name) for name in listed["collections"])]
        )

    async def list_templates(_context: Context, _asked: Any) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(
            uri_template=f"{ALL}/{{name}}",
            name="collection",
            title="One collection",
            description="Its dimension, filterable fields, entries and components",
            mime_type=_JSON,
        )
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(
        context: Context, asked: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = str(asked.uri)
        listed = await _collections(api_of(context))
        if uri == ALL:
            found: Any = listed
        else:
            start, _, name = uri.rpartition("/")
            found = listed["collections"].get(name) if start == ALL else None
        if found is None:
            raise MCPError(
                code=types.INVALID_PARAMS,
                message=f"there is no resource {uri!r:.200}; list them to see which there are",
                data={"uri": uri[:200]},
            )
        text = json.dumps(found, ensure_ascii=False)
        contents = types.TextResourceContents(uri=uri, mime_type=_JSON, text=text)
        return types.ReadResourceResult(contents=[contents])

    return Server(
        "indexrelay",
        version=version("indexrelay"),
        title="indexrelay",
        instructions=_INSTRUCTIONS + (_WRITABLE if with_writes else _READ_ONLY),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )


async def _collections(api: Api) -> dict[str, Any]:
    """What there is; raises `MCPError`: a resource has no result that says what is wrong."""
    try:
        return await api.ask("GET", "/v1/collections")
    except ReaderError as error:
        raise MCPError(code=types.INTERNAL_ERROR, message=str(error)) from error


def _resource(name: str) -> types.Resource:
    return types.Resource(
        uri=f"{ALL}/{name}",
        name=name,
        description=f"The collection {name}: dimension, filterable fields, entries, components",
        mime_type=_JSON,
    )


def _listed(tool: ToolDefinition) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=types.ToolAnnotations(
            title=tool.title,
            read_only_hint=not tool.writes,
            destructive_hint=tool.destroys,
            idempotent_hint=True,
            open_world_hint=False,
        ),
    )


async def _told(tool: str, run: Callable[[], Awaitable[dict[str, Any]]]) -> types.CallToolResult:
    """The result of a call, or what is wrong with it."""
    try:
        found = await run()
    except (InvalidQueryError, ReaderError) as error:
        return _error(str(error))
    except Exception as error:
        log.exception("tool.failed", tool=tool, error=describe_error(error))
        return _error("this is a fault of the server; its log says more")
    text = json.dumps(found, ensure_ascii=False)
    if len(text) > MAX_RESULT_CHARACTERS:
        return _error(
            f"the answer has {len(text):,} characters, and {MAX_RESULT_CHARACTERS:,} are given at "
            "most: ask for fewer hits (k) or ids, or for smaller entries by a filter"
        )
    return types.CallToolResult(
        content=[types.TextContent(text=text)], structured_content=found, is_error=False
    )


def _error(sentence: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=sentence)], is_error=True)

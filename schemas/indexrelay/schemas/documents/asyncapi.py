"""The AsyncAPI 3.0 document: which stream carries which event, and who sends and receives it.

Channels are Redis streams. A key's namespace stands in braces, which Redis Cluster reads as a hash
tag and AsyncAPI as a parameter; so the whole tag, braces and all, is the parameter ``tag``.
"""

from dataclasses import dataclass
from typing import Any, Final

from indexrelay.schemas.documents.json_schema import FORMAT
from indexrelay.schemas.events import (
    EVENT_TYPES,
    FIELD,
    BatchCompleted,
    EventData,
    RebuildFinished,
    RebuildRequested,
    ReleaseApplied,
    ReleasePublished,
)
from indexrelay.schemas.versions import SCHEMA_VERSION

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One stream: what travels on it, from which role to which."""

    description: str
    messages: tuple[type[EventData], ...]
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    """What follows the name in the stream's key, beside the tag before it."""


CHANNELS: Final = {
    "events": Channel(
        description="Something may be due; read by the consumer group `rebuilder`.",
        messages=(BatchCompleted, RebuildRequested),
        senders=("producer", "console"),
        receivers=("rebuilder",),
    ),
    "results": Channel(
        description="What came of each rebuild, for operators.",
        messages=(RebuildFinished,),
        senders=("rebuilder",),
        receivers=("console",),
    ),
    "reloads": Channel(
        description="There is a new release; every reader reads all of it, with its own cursor.",
        messages=(ReleasePublished,),
        senders=("rebuilder",),
        receivers=("reader",),
    ),
    "reports": Channel(
        description="What the readers under one label made of each release.",
        messages=(ReleaseApplied,),
        senders=("reader",),
        receivers=("console",),
        parameters=("label",),
    ),
}
"""By the name in the stream's key."""


def asyncapi_document() -> Document:
    """The whole document; payloads refer to the JSON Schema files beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "indexrelay",
            "version": SCHEMA_VERSION,
            "description": (
                'Events that say "look now" between analysis jobs, the rebuilder and the readers. '
                "An event never carries truth: a lost, repeated or reordered one costs time, never "
                "correctness. Each is a CloudEvents 1.0 message in JSON, the one field of a Redis "
                "stream entry. Fields that a newer minor version added are to be ignored."
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {name: _channel(name, channel) for name, channel in CHANNELS.items()},
        "operations": dict(_operations()),
        "components": {
            "messages": {_camel(data): _message(data) for data in EVENT_TYPES.values()},
            "parameters": {
                "tag": {
                    "description": "The namespace in braces: one hash tag for all of its keys.",
                    "default": "{indexrelay}",
                    "examples": ["{indexrelay}"],
                },
                "label": {
                    "description": "What a reader is called; each label has a stream of its own.",
                    "examples": ["web-1"],
                },
            },
        },
    }


def _channel(name: str, channel: Channel) -> Document:
    address = ":".join(["{tag}", name, *(f"{{{each}}}" for each in channel.parameters)])
    return {
        "address": address,
        "description": channel.description,
        "parameters": {
            each: {"$ref": f"#/components/parameters/{each}"}
            for each in ("tag", *channel.parameters)
        },
        "messages": {
            _camel(data): {"$ref": f"#/components/messages/{_camel(data)}"}
            for data in channel.messages
        },
        "x-redis": {"type": "stream", "field": FIELD.decode()},
    }


def _operations() -> list[tuple[str, Document]]:
    """One for each role and stream: what that role does there."""
    return [
        (
            f"{role}_{action}s_{name}",
            {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [
                    {"$ref": f"#/channels/{name}/messages/{_camel(data)}"}
                    for data in channel.messages
                ],
                "tags": [{"name": role}],
            },
        )
        for name, channel in CHANNELS.items()
        for action, roles in (("send", channel.senders), ("receive", channel.receivers))
        for role in roles
    ]


def _message(data: type[EventData]) -> Document:
    return {
        "name": data.TYPE,
        "title": (data.__doc__ or "").splitlines()[0],
        "contentType": "application/cloudevents+json",
        "payload": {"schemaFormat": FORMAT, "schema": {"$ref": f"schemas/{data.TYPE}.json"}},
    }


def _camel(data: type[EventData]) -> str:
    return data.__name__[0].lower() + data.__name__[1:]

"""What is said, as documents for those who do not read Python.

One JSON Schema for each event, for what lies on disk and in presence, and for the settings file;
and an AsyncAPI document that says who sends which event where. All of it comes from the models, so
it cannot say anything else than they do: ``python -m indexrelay.schemas.documents docs`` writes it,
``--check`` says whether what lies there is still true.
"""

from indexrelay.schemas.documents.asyncapi import asyncapi_document
from indexrelay.schemas.documents.json_schema import json_schema_of, json_schemas

__all__ = ["asyncapi_document", "json_schema_of", "json_schemas"]

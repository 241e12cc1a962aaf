"""The files of a version: tables of ids, payloads and strings, and arrays, mapped when read."""

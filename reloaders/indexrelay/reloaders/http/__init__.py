"""What the reader service adds to its web framework: limits, errors in one shape, and answers.

Nothing here is imported without the extra ``service``; `indexrelay.reloaders.service` is the door.
"""

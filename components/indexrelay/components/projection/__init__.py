"""A map: two coordinates for each entry of a collection, or of several.

A map is something that people learn their way around in, so a rebuild must not stir it. A small
batch does not: its entries are placed into the map that is there, and nothing else moves at all
(`placing`). Only when a tenth has changed, or new entries resemble nothing on it, everything is
laid out anew, and then three things keep it still:

* **The start.** t-SNE begins from the last map's coordinates; an entry that is new begins at the
  mean of its nearest neighbours that are on that map (`starting`).
* **The frame.** Whatever the method did, the result is turned, mirrored and moved onto the last
  map by the entries that both show, and keeps its scale (`framing`). Principal axes may flip their
  sign from one build to the next; the map does not.
* **The range.** Coordinates lie in [-1, 1]. A new map fills 80 % of that, and is only scaled again
  when it has outgrown the range or shrunk below half of where it began.

What moved all the same is measured and recorded as ``drift``.
"""

from indexrelay.components.projection.kind import Projection
from indexrelay.components.projection.layout import ProjectionParameters
from indexrelay.components.projection.map import ProjectionMap

__all__ = ["Projection", "ProjectionMap", "ProjectionParameters"]

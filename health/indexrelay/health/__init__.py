"""Health: whether all is well, and if not why and what to do, as one function over facts.

`survey` gathers the facts from the catalog, the sources, the artifacts and Redis; `due` says what
has to be built; `judge` says what is wrong. Every command and every process that says how things
stand asks `judge`, so that no two of them can disagree.
"""

"""What was committed since the version that is served, laid over it.

`LiveRows` holds the changes of one collection, `LiveView` is what a query sees of them, and
`LiveVectorSearch` answers from a released vector index and a view together. Who fills the rows is
a reader (`indexrelay.reloaders.live`).
"""

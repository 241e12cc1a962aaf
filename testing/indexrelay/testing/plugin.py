"""The pytest plugin: found by its entry point, loaded in every run of whoever installed indexrelay.

So importing it costs next to nothing; FAISS, scikit-learn and fakeredis are imported when a test
first asks for a pipeline.
"""

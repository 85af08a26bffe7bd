"""Reads photos and annotations from disk and makes batches on the host.

`families` reads datasets as their authors ship them, `prepared` writes and
reads our own files, `procedural` and `ambiguous` draw scenes without any files.
"""

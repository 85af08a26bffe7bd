"""Reads photos and annotations from disk and makes batches on the host.

`families` reads datasets as their authors ship them, `prepared` writes and
reads our own ArrayRecord files, `procedural` draws scenes without any files and
`ambiguous` draws some whose annotators disagree by known probabilities,
`transforms` turns records into examples, and `pipeline` batches examples.
"""

"""From photographs and annotations on disk to batches on the host.

`families` reads datasets as their authors ship them, `prepared` writes and
reads our own ArrayRecord files, `procedural` draws scenes without any files,
`transforms` turns a record into an example, `pipeline` batches examples.
"""

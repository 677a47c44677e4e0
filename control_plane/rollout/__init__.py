"""From an admin's write to every node: revisions, the documents they change, the stream, and who applied what."""

"""The way of revisions to nodes: streams, frames, ACKs, and what the admin API shows of it."""

"""The region's counters in Redis or Valkey: standalone, Sentinel or Cluster, over pipelined micro-batches."""

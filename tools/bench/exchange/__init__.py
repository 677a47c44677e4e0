"""What the exchange between regions costs, and how much of a strict limit is used: docs/benchmarks-regions.md."""

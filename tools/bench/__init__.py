"""Repeatable benchmarks of the decision path, with baselines and a floor measured in the same run."""

"""`tidegate apply`, `diff`, `export` and `schema`: the whole configuration as one YAML file."""

"""HTTP/1.1 on every port of every process: one grammar, one set of bounds. Needs nothing of either plane."""

"""What keeps the control plane tidy: expiry, retention, nodes that are gone, and the look for drift."""

"""What Prometheus reads, and how it is written."""

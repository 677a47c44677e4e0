"""Tests that share one `tidegate up`: each makes clients and plans of its own, and stops nothing."""

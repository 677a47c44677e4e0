"""Taking back what one revision changed, by what the audit log kept of it."""

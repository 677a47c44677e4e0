"""Plans, and limits in plans and outside."""

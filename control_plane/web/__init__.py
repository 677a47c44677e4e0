"""What every route shares: problems, pages, preconditions, the shape of fields. It knows no domain."""

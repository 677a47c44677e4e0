"""The whole configuration as one file: read, compared, applied in one transaction; and a way back to any revision."""

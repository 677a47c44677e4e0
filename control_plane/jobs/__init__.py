"""Jobs: scheduled work, done by one replica at a time, with a visible record."""

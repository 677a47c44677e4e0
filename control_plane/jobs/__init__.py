"""Work that nobody asks for by a request: done on a schedule, by one replica at a time, and visible."""

"""Keys of clients: made or taken in, shown without their secret, rotated, revoked."""

"""Plans: the tiers that clients are on."""

"""Regional quotas: how a limit is split over regions."""

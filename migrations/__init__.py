"""The migrations of the control plane's database (Alembic); run by ``control_plane.database.migrate``."""

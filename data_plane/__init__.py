"""The data plane: decision nodes (``node``) and region agents (``agent``), made of rooms named by their flow."""

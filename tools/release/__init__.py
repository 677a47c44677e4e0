"""`make release`: every artefact of a version, made and checked in `dist/`; nothing is uploaded."""

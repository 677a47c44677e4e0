"""The console: web pages over the same routes as the REST API, rendered here, with nothing from elsewhere."""

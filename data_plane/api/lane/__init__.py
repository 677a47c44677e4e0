"""The decision lane: HTTP/1.1 for the hot routes straight on the socket; everything else goes to uvicorn's protocol."""

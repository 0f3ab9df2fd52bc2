"""The HTTP edge: a FastAPI application over the `Runtime`, and the process that serves it (`stanchion.server.serve`)."""

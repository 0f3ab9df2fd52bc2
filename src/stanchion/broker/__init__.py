"""Credentials for tools: where they come from, made for one attempt, and never shown to a model."""

"""What a client gets, as pydantic models for the OpenAPI document and nothing else.

Responses are encoded from the runtime's own structs; a test holds the two together.
"""

"""The agent of the test of SIGTERM under load: books twice, each under a key, and looks once in between."""

from __future__ import annotations

import asyncio
import os

from stanchion import Agent, ToolContext, tool


@tool(effect="irreversible", timeout_s=10)
async def book(seat: str, context: ToolContext, *, key: str) -> str:
    """Book a seat: a line in the file that WITNESS names."""
    file = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{context.run} {seat} {key}\n".encode())
    os.close(file)
    await asyncio.sleep(0.3)  # (done, and not known to be done yet: here the signal is to find some)
    return f"booked {seat}"


@tool(effect="read")
async def look(what: str) -> str:
    """Look something up."""
    return f"{what}: free"


agent = Agent(
    name="booker", identity="Book what you are told.", tools=[book, look], model="anthropic:claude-sonnet-4-6"
)

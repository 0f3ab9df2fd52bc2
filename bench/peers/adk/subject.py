# pyright: basic, reportMissingImports=false
"""The agent in Google's ADK: sessions in PostgreSQL, and an app that is resumable."""

from __future__ import annotations

import logging
import warnings

from google.adk.agents import LlmAgent, RunConfig
from google.adk.agents.run_config import StreamingMode
from google.adk.apps import App, ResumabilityConfig
from google.adk.models.anthropic_llm import AnthropicLlm
from google.adk.runners import Runner
from google.adk.sessions import DatabaseSessionService
from google.adk.tools import ToolContext
from google.genai import types
from line import OnText, Subject, main
from tools import IDENTITY, MAX_OUTPUT_TOKENS, MODEL, look_up, pay_back, write_note

APP, USER = "support", "ann"


async def lookup(order: str) -> str:
    """Look an order up."""
    return await look_up(order)


async def refund(order: str, tool_context: ToolContext) -> str:
    """Pay an order back."""
    return await pay_back(order, f"{order}:{tool_context.function_call_id}")


async def note(order: str) -> str:
    """Write a note on an order."""
    return await write_note(order)


class Adk(Subject):
    """Every event of a run is stored before the next step."""

    async def open(self) -> None:
        """Make the session service, the agent, the app and its runner."""
        logging.disable(logging.WARNING)
        url = self.spec["dsn"].replace("postgresql:", "postgresql+asyncpg:")
        self.sessions = DatabaseSessionService(url, pool_size=20, pool_timeout=300)
        agent = LlmAgent(
            name="support",
            model=AnthropicLlm(model=MODEL, max_tokens=MAX_OUTPUT_TOKENS),
            instruction=IDENTITY,
            tools=[lookup, refund, note],
        )
        app = App(name=APP, root_agent=agent, resumability_config=ResumabilityConfig(is_resumable=True))
        self.runner = Runner(app=app, session_service=self.sessions)
        calls = self.spec.get("limit_calls") or 100_000
        self.config = RunConfig(streaming_mode=StreamingMode.SSE, max_llm_calls=calls)

    async def run(self, name: str, on_text: OnText) -> None:
        """Stream a run in a session of this name."""
        await self.sessions.create_session(app_name=APP, user_id=USER, session_id=name)
        await self._say(name, on_text)

    async def _say(self, name: str, on_text: OnText) -> None:
        message = types.Content(role="user", parts=[types.Part(text=self.spec["prompt"].format(name))])
        await self._stream(on_text, session_id=name, new_message=message)

    async def resume(self, name: str, on_text: OnText) -> None:
        """Go on with the invocation that the session ends in."""
        session = await self.sessions.get_session(app_name=APP, user_id=USER, session_id=name)
        if session is None:
            await self.run(name, on_text)
            return
        if not session.events:
            await self._say(name, on_text)
            return
        await self._stream(on_text, session_id=name, invocation_id=session.events[-1].invocation_id)

    async def _stream(self, on_text: OnText, **asked: object) -> None:
        async for event in self.runner.run_async(user_id=USER, run_config=self.config, **asked):
            if event.error_code:
                raise RuntimeError(f"{event.error_code}: {event.error_message}")
            if event.partial and event.content:
                for part in event.content.parts or []:
                    if part.text:
                        on_text(part.text)

    async def state(self, name: str) -> str:
        """Look at the session's last event."""
        session = await self.sessions.get_session(app_name=APP, user_id=USER, session_id=name)
        last = session.events[-1] if session and session.events else None
        return "done" if last and last.is_final_response() and last.author != "user" else "open"

    async def close(self) -> None:
        """Close the runner."""
        await self.runner.close()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Adk)

"""A seat as AutoGen's teams know it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken

from finagent_model.agents.seat import Seat


class ChatAgent(BaseChatAgent):
    """Hands a seat what was said and passes on what it says; cancelled with its team."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat.name, description=seat.role)
        self._seat = seat

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """A seat is used once and keeps nothing."""

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        said = {message.source: message.to_model_text() for message in messages}
        work = asyncio.ensure_future(self._seat.reply(said))
        cancellation_token.link_future(work)
        return Response(chat_message=TextMessage(content=await work, source=self.name))

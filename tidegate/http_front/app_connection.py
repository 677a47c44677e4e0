"""The part of a connection that the application answers: one request at a time, its body fed as it comes."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from tidegate.http_front.app_request import AppRequest, scope_of
from tidegate.http_front.connection import Connection
from tidegate.http_front.exchange import Head
from tidegate.http_front.front import NEVER
from tidegate.http_front.responses import Refusal


class AppConnection(Connection):
    """Adds ``_app``: the request that the application answers. It is alone in the queue."""

    __slots__ = ("_app", "_parsing")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._app: AppRequest | None = None
        self._parsing = False

    # What the transport, uvicorn and the front call

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._app is not None:
            self._app.lose()
            self._app = None
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """The client sends no more."""
        stays = super().eof_received()
        if self._app is not None:
            self._app.hang_up()
            stays = stays and self._app.body_whole
        return stays

    def pause_writing(self) -> None:
        """The client takes its answers too slowly: take no more requests from it."""
        self._join_queue()
        self._write_paused = True
        if self._app is not None:
            self._app.flow.pause_writing()
        else:
            self._receiving = False
            self._hold()
        self._expire_in(self.front.limits.write_s)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._write_paused = False
        if self._app is not None:
            self._app.flow.resume_writing()
        if self.queue:
            self.expires = NEVER
            if self._app is not None and self._receiving:
                self._expire_in(self.front.limits.request_s)
        elif not self._deaf and not self._parsing:
            self._all_answered()

    def shutdown(self) -> None:
        """uvicorn stops. A body that the application waits for still comes in."""
        if self._app is not None and not self._app.body_whole:
            self._last = self._app
        else:
            super().shutdown()

    def expire(self) -> None:
        """Whatever this connection was given time for has taken too long; but a long body may come, at a pace."""
        if self._receiving and not self._write_paused and self._app is not None and self._app.keeps_pace():
            self._expire_in(self.front.limits.request_s)
        else:
            super().expire()

    # What the application's request calls

    def keep_for(self, request: AppRequest, *, last: bool) -> bool:
        """Whether the connection goes on after ``request``; not if it is to be its ``last`` one."""
        if last:
            self._last = request
        return self._last is None

    def app_answered(self, request: AppRequest) -> None:
        """The response is written whole."""
        self._app = None
        self._server_state.total_requests += 1
        if self._transport.is_closing():
            return
        if self._write_paused:
            self._hold()
        self.queue.popleft()
        self._lingers = not request.body_whole
        self._receiving = False
        if self._last is None and self._held and not self._parsing:
            self.front.go_on_later(self, self._loop)
        else:
            self._after_last_in_queue()

    def go_on(self) -> None:
        """Begin the next request of those that wait behind one another."""
        if not self.queue and not self._transport.is_closing():
            self._all_answered()

    # Inside

    def _serve_app(self, head: Head, data: bytes, start: int) -> int:
        front, config = self.front, self._config
        self._outbox.flush()  # earlier answers: from here on the application writes to the transport
        self._receiving = False
        self.expires = NEVER
        app = self._app = AppRequest(self, head, self._transport, front.limits, front.responses)
        self.queue.append(app)
        if not head.keep_alive:
            self._last = app
        start = self._feed_app(app, data, start)
        scope = scope_of(head, self._transport, config.root_path, self._app_state)
        task = self._loop.create_task(app.run(config.loaded_app, scope))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)
        return start

    def _feed_app(self, app: AppRequest, data: bytes, start: int) -> int:
        start = app.take(data, start)
        if not app.body_whole:
            if not self._receiving:
                self._receiving = True
                self._expire_in(self.front.limits.request_s)
            return start
        self._receiving = False
        if not self._write_paused:
            self.expires = NEVER
        if self._last is app:
            return len(data)
        if start < len(data):
            self._hold()
        return start

    def _refuse(self, refusal: Refusal) -> None:
        app = self._app
        if app is not None:  # what is wrong is its body
            self._app = None
            app.lose()
            self.queue.clear()
            if app.started:
                self.abort()
                return
        super()._refuse(refusal)

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            if not self._transport.is_closing():
                self._transport.pause_reading()

"""Connections to the servers, and calls over them. Each server has one connection for calls and one for watches."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import Any, AsyncIterator, Optional, Protocol, Sequence, Type, TypeVar

import grpc
import grpc.aio

from .address import ServerAddress, parse_addresses
from .backoff import anywhere
from .credentials import Token
from .errors import CallError, CredentialsError, ForkError, TlsError, Unavailable, error_of
from .settings import Settings
from .way import Way

_MAX_RESPONSE = 16 * 1024 * 1024
"""Maximum length of a response in bytes; the broker has the same limit."""
_SEVERAL_CONNECT, _SEVERAL_CALL = 2.0, 3.0
"""Limits of two times where there are several servers, in seconds."""

_PLACES = 64
"""Maximum number of calls at once, without those that wait for leases."""
_LONG = 30.0
"""A call with a longer time limit waits for leases, in seconds."""


class Message(Protocol):
    """A message of the API."""

    def SerializeToString(self) -> bytes: ...


T = TypeVar("T")

_used_here = False
"""Whether this process has had a connection."""
_forked = False
"""Whether a parent of this process had one. gRPC's threads are in the parent, and a call in the child would hang."""


def _after_fork() -> None:
    global _forked
    _forked = _used_here
    if _forked:
        # The collector of the child would end objects of gRPC that threads of the parent were using, and crash.
        gc.freeze()


def refuse_forks() -> None:
    """Raises ``ForkError`` in a process in which a call would hang."""
    if _forked:
        raise ForkError(
            "this process was forked from one that had a connection to the broker, where a call would hang: connect after the fork "
            "alone, or start the process by `spawn` or `subprocess`"
        )


os.register_at_fork(after_in_child=_after_fork)


class Transport:
    """Calls to one of several servers. Connects at the first call, within the running loop of asyncio."""

    def __init__(self, settings: Settings) -> None:
        refuse_forks()
        servers = parse_addresses(settings.server)
        self.several = len(servers) > 1
        self._settings = settings
        self.connect_timeout = min(settings.connect_timeout, _SEVERAL_CONNECT if self.several else 1e9)
        self.call_timeout = min(settings.call_timeout, _SEVERAL_CALL if self.several else 1e9)
        # Watches begin at a random server, so that those of many clients spread over the servers.
        self._ways = (Way(servers, settings.follow), Way(servers, settings.follow, anywhere(len(servers))))
        self._channels: dict[tuple[str, bool], grpc.aio.Channel] = {}
        self._places = asyncio.Semaphore(_PLACES)
        self._left: "set[asyncio.Task[Any]]" = set()
        self._tls: Optional[grpc.ChannelCredentials] = None
        if any(server.secure for server in servers):
            self._tls = self._load_tls()

    @property
    def count(self) -> int:
        """Number of known servers."""
        return len(self._ways[0].servers)

    def _load_tls(self) -> grpc.ChannelCredentials:
        ca, key, certificate = self._settings.tls_files()
        try:
            return grpc.ssl_channel_credentials(ca, key, certificate)
        except (ValueError, TypeError) as error:
            raise TlsError(f"the certificates cannot be used: {error}") from error

    def _channel(self, server: ServerAddress, watches: bool) -> grpc.aio.Channel:
        global _used_here
        refuse_forks()
        key = (server.authority, watches)
        channel = self._channels.get(key)
        if channel is None:
            _used_here = True
            interval, silent = (5_000, 3_000) if self.several else (20_000, 10_000)
            options = [
                ("grpc.max_receive_message_length", _MAX_RESPONSE),
                ("grpc.max_send_message_length", _MAX_RESPONSE),
                ("grpc.keepalive_time_ms", interval),
                ("grpc.keepalive_timeout_ms", silent),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 500),
                ("grpc.max_reconnect_backoff_ms", 1_000),
                # A slow watcher must not delay a renewal.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ]
            if server.secure:
                tls = self._tls = self._tls or self._load_tls()
                channel = grpc.aio.secure_channel(server.target, tls, options=options)
            else:
                channel = grpc.aio.insecure_channel(server.target, options=options)
            self._channels[key] = channel
        return channel

    async def _connected(self, channel: grpc.aio.Channel, until: float) -> bool:
        """Waits for the connection. ``False``: there is none, or not in time."""
        state = channel.get_state(try_to_connect=True)
        failed = grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if state is grpc.ChannelConnectivity.READY:
            return True
        if state is failed and self.several:
            return False
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                while True:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
                    if state is grpc.ChannelConnectivity.READY:
                        return True
                    if state in (failed, grpc.ChannelConnectivity.SHUTDOWN):
                        return False
        except TimeoutError:
            return False

    async def _sign(self, server: ServerAddress) -> Optional[Token]:
        """The token for a server. Without TLS others could read it on its way to another machine."""
        if self._settings.credentials is None:
            return None
        token = await self._settings.credentials.token()
        if not (server.is_private or server.is_here):
            raise CredentialsError(
                f"the token is not sent to {server.authority}: there is no TLS, and others could read it; write "
                f"https://{server.authority}"
            )
        return token

    async def unary(self, path: str, request: Message, response: Type[T], timeout: float) -> T:
        """Makes one call with one answer. Raises ``CallError``; the caller decides whether to repeat it."""
        end = time.monotonic() + timeout
        way = self._ways[0]
        left, dead = 2 * len(way.servers), list[int]()
        renewed = False
        while True:
            at = way.at
            server = way.servers[at]
            token = await self._sign(server)
            channel = self._channel(server, False)
            left -= 1
            stood = await self._connected(channel, min(end, time.monotonic() + self.connect_timeout))
            call = channel.unary_unary(
                path,
                request_serializer=_serialize,
                response_deserializer=response.FromString,  # type: ignore[attr-defined]
            )
            # Without a connection it fails at once, and says why.
            limit = max(0.001, end - time.monotonic()) if stood else 0.2
            try:
                answer: T = await self._one(call, request, limit, _metadata(token))
                return answer
            except grpc.aio.AioRpcError as status:
                error = _error(status)
            except asyncio.CancelledError:
                # It may have met a server that hangs.
                way.go_on(at)
                raise
            if error.is_unauthenticated and token is not None and not renewed and await self._has_other_than(token):
                renewed = True
                continue
            if not stood and isinstance(error, Unavailable):
                way.go_on(at)
                dead.append(at)
                if len(way.servers) > 1 and left > 0:
                    continue
                raise error
            if way.judge(error, at, dead) and left > 0:
                continue
            raise error

    async def _one(self, call: Any, request: Message, timeout: float, metadata: Sequence[tuple[str, str]]) -> Any:
        """One call. A caller that is cancelled leaves it to its end: servers take many streams that are reset for an attack, and
        close the connection under all others."""

        async def work() -> Any:
            return await call(request, timeout=timeout, metadata=metadata)

        # A call that waits for a lease takes no place.
        if timeout > _LONG:
            return await call(request, timeout=timeout, metadata=metadata)
        async with self._places:
            task = asyncio.get_running_loop().create_task(work())
            self._left.add(task)
            task.add_done_callback(self._ended)
            return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._left.discard(task)
        if not task.cancelled():
            # Its caller may have gone.
            task.exception()

    async def _has_other_than(self, token: Token) -> bool:
        credentials = self._settings.credentials
        return credentials is not None and await credentials.other_than(token) is not None

    async def stream(
        self, path: str, request: Message, response: Type[T], open_timeout: float, silence: float
    ) -> AsyncIterator[T]:
        """Yields the messages of one stream. Ends without an error where the server ends it. Raises ``CallError``, also after
        ``silence`` seconds without a message."""
        way = self._ways[1]
        at = way.at
        server = way.servers[at]
        token = await self._sign(server)
        channel = self._channel(server, True)
        stood = await self._connected(channel, time.monotonic() + self.connect_timeout)
        call: Any = channel.unary_stream(
            path,
            request_serializer=_serialize,
            response_deserializer=response.FromString,  # type: ignore[attr-defined]
        )(request, metadata=_metadata(token), timeout=None if stood else 0.2)
        try:
            async with asyncio.timeout(open_timeout):
                await call.wait_for_connection()
            while True:
                async with asyncio.timeout(silence):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    return
                yield message
        except grpc.aio.AioRpcError as status:
            error = _error(status)
            way.judge(error, at, ())
            raise error from None
        except TimeoutError:
            way.go_on(at)
            raise Unavailable(grpc.StatusCode.UNAVAILABLE, f"{server.authority} is silent") from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes the connections."""
        for task in list(self._left):
            task.cancel()
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _metadata(token: Optional[Token]) -> Sequence[tuple[str, str]]:
    return [] if token is None else [("authorization", token.header)]


def _error(status: grpc.aio.AioRpcError) -> CallError:
    trailing = [(key, value) for key, value in status.trailing_metadata() or ()]
    # A connection that breaks has no trailing metadata, and UNKNOWN or INTERNAL at times.
    return error_of(status.code(), status.details() or "", trailing, sent=bool(trailing))

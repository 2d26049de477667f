"""Sources of the caller's token: a text, a file that is read again, a command, a CI product."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import time
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Mapping, Optional, Sequence

from .errors import CredentialsError

_MAX = 16 * 1024
"""Maximum length of a token, and of an answer with one, in bytes."""
_TIME = 10.0
"""Maximum time of a command, and of a request to a CI product, in seconds."""
_USUAL = 300.0
"""Time for which a token without a readable ``exp`` is used, in seconds."""
_KUBERNETES = Path("/var/run/secrets/wharfinger/token")


class Token:
    """The token of a caller. ``repr`` prints no value."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        text = text.strip()
        if not text or not all("!" <= letter <= "~" for letter in text):
            raise ValueError("is no token")
        self._text = text

    @property
    def header(self) -> str:
        """Value of the metadata ``authorization``."""
        return f"Bearer {self._text}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Token(..)"


class Credentials(ABC):
    """A source of the caller's token. ``repr`` prints no value."""

    @abstractmethod
    async def token(self) -> Token:
        """Returns the present token. Raises ``CredentialsError``."""

    async def other_than(self, refused: Token) -> Optional[Token]:
        """Returns another token than the one that a server refused, if there is one."""
        try:
            token = await self.token()
        except CredentialsError:
            return None
        return None if token == refused else token

    def __repr__(self) -> str:
        return f"{type(self).__name__}(..)"


class TokenText(Credentials):
    """A token that never changes."""

    def __init__(self, text: str, name: str = "the token") -> None:
        try:
            self._token = Token(text)
        except ValueError:
            raise CredentialsError(f"{name} holds no token: set it to one, or unset it") from None

    async def token(self) -> Token:
        return self._token


class TokenFile(Credentials):
    """The token in a file. It is read again when the file has changed."""

    def __init__(self, path: "Path | str") -> None:
        self._path = Path(path)
        self._present: Optional[tuple[tuple[int, ...], Token]] = None

    async def token(self) -> Token:
        try:
            # A FIFO in place of the file must not hang its reader.
            handle = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CredentialsError(f"the token file {self._path} cannot be read: {error.strerror}") from error
        with open(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode) or about.st_size > _MAX:
                raise CredentialsError(f"the token file {self._path} is no regular file of at most {_MAX} bytes")
            stamp = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
            if self._present is None or self._present[0] != stamp:
                try:
                    self._present = (stamp, Token(file.read(_MAX).decode("ascii", "replace")))
                except ValueError:
                    raise CredentialsError(f"the token file {self._path} holds no token") from None
            return self._present[1]


class _Timed(Credentials):
    """A token that is used for 80 % of its time, and asked for anew then. One caller at a time asks the source."""

    def __init__(self) -> None:
        self._present: Optional[tuple[float, Token]] = None
        self._lock = asyncio.Lock()

    @abstractmethod
    async def _ask(self) -> str:
        """Asks the source. Raises ``CredentialsError``."""

    async def token(self) -> Token:
        async with self._lock:
            if self._present is None or time.monotonic() >= self._present[0]:
                text = await self._ask()
                try:
                    token = Token(text)
                except ValueError:
                    raise CredentialsError(f"{self!r} gave no token") from None
                self._present = (time.monotonic() + _use_for(text), token)
            return self._present[1]

    async def other_than(self, refused: Token) -> Optional[Token]:
        async with self._lock:
            if self._present is not None and self._present[1] == refused:
                self._present = None
        return await super().other_than(refused)


class TokenCommand(_Timed):
    """The token that a program prints: its name and arguments, without a shell. It has ten seconds."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__()
        if not argv:
            raise CredentialsError("the command for a token has no words")
        self._argv = list(argv)

    def __repr__(self) -> str:
        return f"the command {self._argv[0]!r} for a token"

    async def _ask(self) -> str:
        try:
            child = await asyncio.create_subprocess_exec(
                *self._argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
        except OSError as error:
            raise CredentialsError(f"{self!r} cannot be started: {error.strerror}") from error
        try:
            async with asyncio.timeout(_TIME):
                output, _ = await child.communicate()
        except TimeoutError:
            raise CredentialsError(f"{self!r} did not end within {_TIME:g} s") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode != 0:
            raise CredentialsError(f"{self!r} failed with {child.returncode}")
        if len(output) > _MAX:
            raise CredentialsError(f"{self!r} printed no token")
        return output.decode("ascii", "replace")


class GithubToken(_Timed):
    """Tokens of a job of GitHub Actions with ``permissions: id-token: write``."""

    def __init__(self, url: str, bearer: str, audience: str) -> None:
        super().__init__()
        if not url.startswith("https://"):
            raise CredentialsError("ACTIONS_ID_TOKEN_REQUEST_URL does not begin with https://")
        separator = "&" if "?" in url else "?"
        self._url = f"{url}{separator}audience={urllib.parse.quote(audience, safe='')}"
        self._bearer = bearer

    def __repr__(self) -> str:
        return "GitHub Actions"

    async def _ask(self) -> str:
        return await asyncio.to_thread(self._get)

    def _get(self) -> str:
        headers = {"Authorization": f"bearer {self._bearer}", "Accept": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url, headers=headers), timeout=_TIME) as answer:
                value = json.loads(answer.read(_MAX))["value"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CredentialsError(
                f"GitHub Actions gave no token ({error}): does the job have `permissions: id-token: write`?"
            ) from error
        return str(value)


def _use_for(text: str) -> float:
    """Returns the seconds for which a token is used. Nothing of it is verified: the server does that."""
    try:
        part = text.strip().split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return float(min(max(claims["exp"] - time.time(), 0.0) * 0.8, 86_400.0))
    except (ValueError, LookupError, TypeError):
        return _USUAL


def words(line: str) -> list[str]:
    """Returns the words of a command: a JSON list, or words with blanks between. There is no shell, and there are no quotes."""
    if not line.lstrip().startswith("["):
        return line.split()
    try:
        found = json.loads(line)
    except ValueError as error:
        raise CredentialsError(f"WHARFINGER_AUTH_TOKEN_COMMAND is no list of words: {error}") from error
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise CredentialsError('WHARFINGER_AUTH_TOKEN_COMMAND is no list of words: write ["program", "an argument"]')
    return found


def audience_of(server: str) -> str:
    """Returns the audience of the first server: its host, without a port."""
    authority = server.split(",")[0].strip().rpartition("://")[2]
    host, colon, _ = authority.rpartition(":")
    return f"https://{host if colon else authority}"


def from_environment(env: Mapping[str, str], server: str) -> Optional[Credentials]:
    """Returns the source of the token that the environment names, as the command line takes it."""
    product = env.get("WHARFINGER_OIDC")
    if product is not None:
        return _of_product(env, product, env.get("WHARFINGER_AUDIENCE") or audience_of(server))
    if "WHARFINGER_AUTH_TOKEN_FILE" in env:
        return TokenFile(env["WHARFINGER_AUTH_TOKEN_FILE"])
    if "WHARFINGER_AUTH_TOKEN_COMMAND" in env:
        return TokenCommand(words(env["WHARFINGER_AUTH_TOKEN_COMMAND"]))
    if "WHARFINGER_AUTH_TOKEN" in env:
        return TokenText(env["WHARFINGER_AUTH_TOKEN"], "WHARFINGER_AUTH_TOKEN")
    return None


def _of_product(env: Mapping[str, str], product: str, audience: str) -> Credentials:
    def part(name: str, remedy: str) -> str:
        if name not in env:
            raise CredentialsError(f"{name} is not set: {remedy}")
        return env[name]

    if product == "github":
        remedy = "give the job `permissions: id-token: write`"
        url, bearer = (part(f"ACTIONS_ID_TOKEN_REQUEST_{name}", remedy) for name in ("URL", "TOKEN"))
        return GithubToken(url, bearer, audience)
    if product == "gitlab":
        remedy = f"give the job `id_tokens: WHARFINGER_ID_TOKEN: aud: {audience}`"
        return TokenText(part("WHARFINGER_ID_TOKEN", remedy), "WHARFINGER_ID_TOKEN")
    if product == "buildkite":
        argv = ["buildkite-agent", "oidc", "request-token", "--audience", audience]
        return TokenCommand([*argv, "--claim", "organization_id", "--claim", "pipeline_id"])
    if product == "kubernetes":
        return TokenFile(_KUBERNETES)
    raise CredentialsError(f"WHARFINGER_OIDC is {product!r}, and none of github, gitlab, buildkite, kubernetes")


def is_secret(name: str) -> bool:
    """Whether a variable of the environment holds a token of the caller, or the way to one."""
    return name.startswith("WHARFINGER_AUTH_") or name == "WHARFINGER_ID_TOKEN"

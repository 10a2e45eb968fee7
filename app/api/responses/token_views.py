"""Tokens as JSON."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from ...values.token import Scope, Token


class TokenView(BaseModel):
    """A token, without its secret."""

    name: str = Field(examples=["trainer"])
    id: str = Field(description="the first part of the token's text, which is no secret", examples=["0123456789abcdef"])
    scope: Scope
    namespaces: list[str] | None = Field(description="null: all", examples=[["vision"]])
    created_at: datetime
    expires_at: datetime | None = Field(description="null: never")
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="at most a minute before its last use; null: never used")
    state: str = Field(description="`good`, `expired` or `revoked`", examples=["good"])

    @classmethod
    def of(cls, token: Token) -> "TokenView":
        return cls(**_shown(token))


class NewTokenView(TokenView):
    """A new token. Its text is not shown again."""

    token: str = Field(description="the text that requests send", examples=["stateroom_0123456789abcdef_..."])

    @classmethod
    def made(cls, token: Token, text: str) -> "NewTokenView":
        return cls(**_shown(token), token=text)


class TokenPage(BaseModel):
    items: list[TokenView]
    next: str | None

    @classmethod
    def of(cls, tokens: Iterable[Token], cursor: str | None) -> "TokenPage":
        return cls(items=[TokenView.of(token) for token in tokens], next=cursor)


def _shown(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "id": token.id,
        "scope": token.scope,
        "namespaces": None if token.namespaces is None else sorted(token.namespaces),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
        "last_used_at": token.last_used_at,
        "state": token.state(datetime.now(UTC)),
    }

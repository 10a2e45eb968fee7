"""Who may talk to the server: whoever holds the token, as a Bearer, or as the password of Basic."""

import base64
import binascii

from fastapi import Depends, Request
from fastapi.security import HTTPBasic, HTTPBearer
from starlette.exceptions import HTTPException

from .services import Parts

CHALLENGE = 'Bearer realm="stateroom", Basic realm="stateroom", charset="UTF-8"'


def token_in(authorization: str | None) -> str | None:
    """The token an Authorization header carries, None where it carries none."""
    scheme, _, credentials = (authorization or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":
        try:
            user_and_password = base64.b64decode(credentials.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        return user_and_password.partition(":")[2]
    return None


async def require_token(request: Request, services: Parts) -> None:
    """Refuses before the body is read."""
    header = request.headers.get("Authorization")
    if not services.accepts(token_in(header)):
        detail = "The token is wrong." if header else "This server asks for a token: Authorization: Bearer TOKEN."
        raise HTTPException(401, detail, {"WWW-Authenticate": CHALLENGE})


GUARD = [
    Depends(HTTPBearer(auto_error=False, description="The server's token.")),
    Depends(HTTPBasic(auto_error=False, description="Any user; the password is the server's token.")),
    Depends(require_token),
]
"""Dependencies of every route that is not public; the first two are there for /docs."""

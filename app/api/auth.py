"""Who may talk to the server: whoever holds the token, as a Bearer, or as the password of Basic."""

import base64
import binascii

from fastapi import Depends, Request
from fastapi.security.http import HTTPBase
from starlette.exceptions import HTTPException

from .services import Parts

CHALLENGE = 'Bearer realm="stateroom", Basic realm="stateroom", charset="UTF-8"'


def token_in(authorization: bytes) -> bytes | None:
    """The token an Authorization header carries, None where it carries none. Any bytes: it may not be UTF-8."""
    scheme, _, credentials = authorization.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    if scheme.lower() == b"basic":
        try:
            user_and_password = base64.b64decode(credentials.strip(), validate=True)
        except binascii.Error:
            return None
        _, colon, password = user_and_password.partition(b":")
        return password if colon else None
    return None


async def require_token(request: Request, services: Parts) -> None:
    """Refuses before the body is read."""
    header = request.headers.get("Authorization", "").encode("latin-1")  # as Starlette decoded it
    if not services.accepts(token_in(header)):
        detail = "The token is wrong." if header else "This server asks for a token: Authorization: Bearer TOKEN."
        raise HTTPException(401, detail, {"WWW-Authenticate": CHALLENGE})


GUARD = [
    Depends(HTTPBase(scheme="bearer", scheme_name="HTTPBearer", auto_error=False, description="The server's token.")),
    Depends(
        HTTPBase(
            scheme="basic",
            scheme_name="HTTPBasic",
            auto_error=False,
            description="Any user; the password is the server's token.",
        )
    ),
    Depends(require_token),
]
"""Dependencies of every route that is not public; the first two are there for /docs, and refuse nothing."""

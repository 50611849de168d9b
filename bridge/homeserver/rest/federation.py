"""Where other instances ask: one operation, which takes a sealed document and answers with one.

Who asks is proven by the seal, under keys that the operator pinned; there is no token.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from bridge.errors import DecodeError, SignatureError
from bridge.homeserver.federation.desk import LaterError, SettledError, UnpinnedError
from bridge.homeserver.federation.link import PATH, SEAL_HEADER
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.problems import ProblemError

router = APIRouter(prefix=PATH, tags=["federation"])

_SEALED: Final[dict[str, Any]] = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["act"],
                "properties": {"act": {"type": "string", "description": "The kind of document."}},
            }
        }
    },
}


@router.post(
    "",
    response_class=Response,
    openapi_extra={"requestBody": {**_SEALED, "required": True}},
    responses={200: {"description": "The answer, sealed in the header Khepri-Seal", **_SEALED}},
)
async def answer(
    request: Request,
    here: Here,
    seal: Annotated[
        str,
        Header(
            alias=SEAL_HEADER, description="A `kb-escrow+jwt` over the body.", min_length=1, max_length=4096
        ),
    ],
) -> Response:
    """Answer another instance: decide about what it has in escrow for this one, or tell it the servers here.

    The documents are those of `docs/protocol.md`, section 11. Asked again, it gives the same answer.
    """
    if here.desk is None:
        raise ProblemError("no_federation", "this process has no key of the instance to answer with")
    try:
        answered = await here.desk.serve(await request.body(), seal)
    except UnpinnedError as error:
        raise ProblemError("unpinned", str(error)) from error
    except SignatureError as error:
        raise ProblemError("bad_seal", str(error)) from error
    except DecodeError as error:
        raise ProblemError("invalid_request", str(error)) from error
    except LaterError as error:
        raise ProblemError("elsewhere", str(error), headers={"Retry-After": "1"}) from error
    except SettledError as error:
        raise ProblemError("settled", str(error)) from error
    return Response(answered.body, media_type="application/json", headers={SEAL_HEADER: answered.seal})

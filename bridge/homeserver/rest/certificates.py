"""Certificates: whose a key is. Got once, renewed by their holders (R0-32)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, Field
from starlette.requests import Request

from bridge.homeserver.rest.authentication import bearer_scheme, caller
from bridge.homeserver.rest.callers import Caller
from bridge.homeserver.rest.context import Here
from bridge.homeserver.rest.issuing import Issues, refusing
from bridge.homeserver.rest.limits import host_of
from bridge.homeserver.rest.problems import ProblemError, too_many
from bridge.jose.credentials import Enrolment, Proof, Role

router = APIRouter(prefix="/v1/certificates", tags=["certificates"])


class Enrolling(BaseModel):
    """A request for a certificate."""

    enrolment: str = Field(
        description="A `kb-enrolment+jwt`, signed by the key that it names.",
        max_length=Enrolment.MAX_BYTES,
        examples=["eyJhbGci.eyJpc3Mi.c2lnbmF0"],
    )
    proof: str | None = Field(
        default=None,
        description="For another key: a `kb-proof+jwt` of the name's key until now, with the use `key` and "
        "the other key's thumbprint as `peer`.",
        max_length=Proof.MAX_BYTES,
    )


class Certified(BaseModel):
    """A certificate."""

    certificate: str = Field(description="A `kb-certificate+jwt`.", examples=["eyJhbGci.eyJpc3Mi.c2lnbmF0"])
    expires: int = Field(description="Unix seconds.", examples=[1795297739])


async def maybe_caller(
    request: Request,
    here: Here,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer_scheme)],
) -> Caller | None:
    """Who the request is from, if it says so.

    Raises:
        ProblemError: its token does not hold.
    """
    return None if credentials is None else await caller(request, here, credentials)


@router.post("", status_code=201, openapi_extra={"security": [{}]})
async def enrol(
    body: Enrolling,
    issues: Issues,
    request: Request,
    who: Annotated[Caller | None, Depends(maybe_caller)],
) -> Certified:
    """Give a certificate for a name and a key.

    A renewal with the same key; where registration is open, a name that nobody has, for a player; with a
    proof of the name's key until now, another key. With an operator's token: anything but an operator's.
    """
    by_operator = who is not None and who.role is Role.OPERATOR
    if not by_operator and not issues.takes_enrolment(host_of(request.scope)):
        raise too_many("too many enrolments from one address")
    with refusing("bad_enrolment"):
        enrolment = issues.read_enrolment(body.enrolment)
    if enrolment.role is Role.OPERATOR:
        raise ProblemError("registration_closed", "operators are certified with `homeserver certify`")
    previous = None
    if body.proof is not None:
        # The key itself has to say so: who has read a token off somewhere would have the name for good.
        with refusing("bad_proof"):
            proof, certificate = issues.read_proof(body.proof)
            previous = await issues.handed_over(proof, certificate, enrolment)
    is_open = issues.settings.open_registration and enrolment.role is Role.PLAYER
    if not (by_operator or previous or is_open or await issues.is_holder(enrolment)):
        raise ProblemError("registration_closed", f"{enrolment.role} {enrolment.subject} is not enrolled")
    made = await issues.certify(enrolment, previous=previous, operator=by_operator)
    return Certified(certificate=made.token, expires=made.expires_at)

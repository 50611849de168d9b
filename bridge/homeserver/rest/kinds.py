"""Every kind of problem that a request can end as: its status, what it is called, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its status code, and what to do about it."""

    status: int
    title: str
    advice: str


KINDS: Final[Mapping[str, Kind]] = {
    # Of HTTP
    "malformed": Kind(400, "The body is no JSON", "Send one JSON object, as the OpenAPI document shows."),
    "invalid_request": Kind(422, "The request is not valid", "Mend what `errors` or `detail` names."),
    "no_resource": Kind(404, "Nothing is here", "Look the path up in /v1/openapi.json."),
    "method_not_allowed": Kind(405, "Not a method of this resource", "Use one that the header Allow names."),
    "too_large": Kind(413, "The request is too large", "Send less."),
    "too_slow": Kind(408, "The body did not come in time", "Send it at once, on a new connection."),
    "media_type": Kind(
        415, "The body is not said to be JSON", "Send it with `Content-Type: application/json`."
    ),
    "http": Kind(400, "The request is not served", "Look the operation up in /v1/openapi.json."),
    "too_many_requests": Kind(429, "Too many requests", "Wait as long as Retry-After says, in seconds."),
    "too_many_feeds": Kind(503, "Too many live feeds", "Ask again: another service process may have room."),
    # Of who asks
    "unauthenticated": Kind(
        401, "No valid access token", "Get one with POST /v1/tokens, and send it as `Authorization: Bearer`."
    ),
    "role": Kind(403, "Not for this role", "Ask with a token of a role that `roles` names."),
    "other_name": Kind(
        403, "In somebody else's name", "Ask in your own name; only an operator may name others."
    ),
    "not_owner": Kind(403, "Only its owner or its master may", "Ask `owner` or `master` to do it."),
    "not_master": Kind(403, "Only its master may", "Ask `master` to do it."),
    "not_holder": Kind(403, "This session does not hold it", "Read the entity: it says who simulates it."),
    "denied": Kind(
        403, "The rule of the entity forbids it", "Request it from the master, under the rule `ask`."
    ),
    "server_key_mismatch": Kind(
        403, "Another key holds this name", "Use the key that the name was first opened with."
    ),
    "bad_proof": Kind(
        401, "The proof does not hold", "Sign a new one with your certificate's key, for this instance, now."
    ),
    "bad_enrolment": Kind(
        403,
        "The enrolment does not hold",
        "Sign a new one with the key it names, for this instance, now.",
    ),
    "replayed": Kind(401, "The proof was shown before", "Sign a new one for each request."),
    "revoked": Kind(403, "The key or the certificate was revoked", "Make a new key, and ask the operator."),
    "not_enrolled": Kind(403, "The key does not speak for the name", "Use the name's newest key."),
    "registration_closed": Kind(403, "Nobody registers by himself here", "Ask an operator to enrol you."),
    # Of what is there
    "no_entity": Kind(404, "No such entity", "Check the name; a server creates entities in its session."),
    "no_server": Kind(
        404, "No such server", "Check the name; a server is known once it has opened a session."
    ),
    "no_session": Kind(
        404, "No such session", "Open a new one: this one was never opened by you, or has ended."
    ),
    "no_scene": Kind(404, "No such scene", "Check the name, or create it."),
    "no_player": Kind(
        409, "The player is not here", "Enter at a server first: PUT /v1/players/{player}/presence."
    ),
    "no_ask": Kind(404, "Nothing is asked", "It was answered, withdrawn, or has expired: read the entity."),
    "reserved_name": Kind(
        409, "A name of another instance's player", "Use a name that does not end in @ and a pinned instance."
    ),
    "not_here": Kind(409, "The player is at another server", "Leave `server` instead."),
    "server_away": Kind(
        409, "That server has no session", "Choose another server, or wait until it is back."
    ),
    "conflict": Kind(
        409, "Somebody else was faster", "Read the entity, and ask again for what is there now."
    ),
    "pending": Kind(409, "Asked already", "Wait for the answer, until `expires`, or withdraw the request."),
    "master_away": Kind(409, "The master is at no server", "Ask again when the master is back."),
    "too_many_asks": Kind(
        409, "The master has too many questions", "Wait until some are answered or withdrawn."
    ),
    "already_owner": Kind(409, "The player has it already", "Nothing need be done."),
    "already_held": Kind(409, "This session holds it already", "Nothing need be done."),
    "entity_exists": Kind(409, "An entity of this name exists", "Choose another name."),
    "being_deleted": Kind(
        409, "The last entity of this name is being deleted", "Ask again in a moment, or choose another name."
    ),
    "quota": Kind(
        409,
        "There are as many entities as there may be",
        "Delete some; `limit` says of whom, `maximum` how many.",
    ),
    "not_home": Kind(409, "The entity has its home elsewhere", "Pass it back to `instance` first."),
    "scene_changed": Kind(412, "The scene was changed", "Read it again, and send its ETag in If-Match."),
    "name_in_use": Kind(409, "This server has an open session", "Close it, or wait until its lease is over."),
    "restoring": Kind(503, "A backup is being restored", "Try again when that has ended."),
    "key_reused": Kind(
        409, "This Idempotency-Key is another request's", "Repeat that one as it was, or use a new key."
    ),
    "outcome_forgotten": Kind(
        409, "This Idempotency-Key is too old", "Read what became of it; use a new key."
    ),
    "bad_release": Kind(422, "No release of this entity", "Send the holder's signed release as it came."),
    "invalid_key": Kind(
        403, "Not the key of the token", "Send the public P-256 key (JWK) that your token was got with."
    ),
    "name_taken": Kind(409, "Another key holds this name", "Choose another name, or show the name's key."),
    "key_taken": Kind(409, "Another name has this key", "Make a new key."),
    # Of other instances
    "away": Kind(409, "The entity is at another instance", "Ask there; `instance` says where it went."),
    "unpinned": Kind(403, "Not of an instance that is trusted here", "Have its operator pin your key."),
    "bad_seal": Kind(403, "The seal does not hold", "Seal the document anew, for this instance."),
    "elsewhere": Kind(409, "Not decided yet", "Ask again in a second: word from elsewhere is on its way."),
    "settled": Kind(409, "The transfer is over", "Nothing need be done."),
    "too_many_answers": Kind(
        429,
        "Too many answers are kept for this instance",
        "Say what you have closed (`settle`), and ask again.",
    ),
    "no_federation": Kind(404, "No federation here", "Ask a process that has the instance's signer."),
    "no_peer": Kind(404, "No such instance is pinned here", "Pin it: `khepri-bridge federation peer add`."),
    # Of the cluster
    "unavailable": Kind(503, "The cluster does not answer", "Ask again in a second: nothing was changed."),
    "outcome_unknown": Kind(
        503,
        "It may have been done, or not",
        "Repeat it with the same Idempotency-Key, or read what is there now.",
    ),
    "no_signer": Kind(503, "Nothing is signed here", "Ask another process of the service."),
    "not_signed": Kind(503, "The signer refuses", "Ask again in a moment; see `detail`."),
    "not_acknowledged": Kind(
        503,
        "The lessor has not answered",
        "Send the next renewal; act no longer than the lease you have.",
    ),
    "refused": Kind(422, "The homeserver refused", "See `detail`."),
    "internal": Kind(500, "A defect of the service", "Tell its operator the `trace`."),
}

#!/usr/bin/env python3
"""Writes activities straight into a journal, and returns once they are durable: written from crates/model/FORMAT.md and proto/ alone.

    panel.py HOST:PORT CERTIFICATES NAME ACTIVITY...

CERTIFICATES is a folder with ca.pem, NAME.pem and NAME.key; each ACTIVITY is a JSON object with `action` and, as wanted, `target`
{type, id}, `outcome`, `actor` and `impersonator` {id, name, kind}, `customer`, `client_address`, `session`, `user_agent`, `severity`
(1 to 24), `message` and `attributes`. Prints one JSON object a line: the sequence in the journal of each.

Needs the packages blake3, zstandard, grpcio and grpcio-tools. Keeps no queue and signs no heads: what is not durable when it ends is
not written. Does not verify the signature of receipts.
"""

import hashlib
import json
import os
import pathlib
import queue
import struct
import sys
import time

import blake3
import grpc
import zstandard

sys.path.insert(0, os.environ.get("SIGILLO_PROTO") or str(pathlib.Path(__file__).resolve().parents[3] / "proto"))
record, _ = grpc.protos_and_services("sigillo/v1/record.proto")
ingest, services = grpc.protos_and_services("sigillo/v1/ingest.proto")

ATTEMPTS = 3
# Seconds that one stream may take.
ANSWER_S = 10
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Ended(Exception):
    """The stream ended before the answer; what became of the batch is not known yet."""


class Refused(Exception):
    """The journal will not take it; sending it again does not help."""


def derive(use, *pieces):
    return blake3.blake3(b"".join(pieces), derive_key_context="sigillo 2026 v1 " + use).digest()


def value(content):
    if isinstance(content, bool):
        return record.AnyValue(bool_value=content)
    if isinstance(content, int):
        return record.AnyValue(int_value=content)
    if isinstance(content, float):
        return record.AnyValue(double_value=content)
    return record.AnyValue(string_value=str(content))


def actor(fields):
    kind = record.ActorKind.Value("ACTOR_KIND_" + fields.get("kind", "unspecified").upper())
    return record.Actor(id=fields.get("id", ""), name=fields.get("name", ""), kind=kind)


def encode(activity):
    """The three parts of a record; a part may be None. Done once: these bytes are what is hashed and stored."""
    now = time.time_ns()
    core = record.CorePart(
        event_time_unix_nano=now,
        observed_time_unix_nano=now,
        severity_number=activity.get("severity", 9),
        event_name="panel.activity",
        action=activity["action"],
        outcome=record.Outcome.Value("OUTCOME_" + activity.get("outcome", "unspecified").upper()),
        host=os.uname().nodename,
        tenant=activity.get("customer", ""),
    )
    if "target" in activity:
        core.target.CopyFrom(record.Target(**activity["target"]))
    personal = record.PersonalPart(
        client_address=activity.get("client_address", ""),
        session=activity.get("session", ""),
        user_agent=activity.get("user_agent", ""),
    )
    for who in ("actor", "impersonator"):
        if who in activity:
            getattr(personal, who).CopyFrom(actor(activity[who]))
    content = record.ContentPart()
    if "message" in activity:
        content.body.CopyFrom(value(activity["message"]))
    for key, fact in activity.get("attributes", {}).items():
        content.attributes.append(record.KeyValue(key=key, value=value(fact)))
    return [part.SerializeToString() or None for part in (core, personal, content)]


def commitment(secret, index, parts):
    bitmap, pieces = 0, []
    for j, part in enumerate(parts):
        if part is not None:
            bitmap |= 1 << j
            salt = derive("salt", secret, struct.pack(">IB", index, j))
            pieces.append(derive("part", salt, struct.pack(">BQ", j, len(part)), part))
    return derive("commit", bytes([bitmap]), *pieces)


def root(hashes):
    """RFC 6962 over leaves that are hashed already."""
    if len(hashes) == 1:
        return hashes[0]
    left = 1 << ((len(hashes) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + root(hashes[:left]) + root(hashes[left:])).digest()


def block(records):
    present = [[part for part in column if part is not None] for column in zip(*records)]
    bitmaps = bytes(sum(1 << j for j, part in enumerate(parts) if part is not None) for parts in records)
    lengths = b"".join(struct.pack(">I", len(part)) for column in present for part in column)
    return struct.pack(">BI", 1, len(records)) + bitmaps + lengths + b"".join(b"".join(column) for column in present)


class Journal:
    """One source of one journal. Each call of `write` ends when the journal has said that all is durable."""

    def __init__(self, address, certificates, name, server_name=None):
        folder = pathlib.Path(certificates)
        read = lambda file: (folder / file).read_bytes()
        credentials = grpc.ssl_channel_credentials(read("ca.pem"), read(f"{name}.key"), read(f"{name}.pem"))
        options = [("grpc.ssl_target_name_override", server_name)] if server_name else []
        self.channel = grpc.secure_channel(address, credentials, options)
        self.stub = services.IngestStub(self.channel)
        # Epoch, next sequence and hash of the last batch; None until the journal has told where we stand.
        self.place = None

    def write(self, activities):
        """Writes activities together; their sequences in the journal."""
        records = [encode(activity) for activity in activities]
        batch = None
        for attempt in range(ATTEMPTS):
            try:
                with Stream(self.stub) as stream:
                    # Cut once: if the connection breaks before the ack, the very same bytes are sent again, and the journal
                    # answers with the same receipt. Nothing is doubled.
                    batch = batch or self.seal(stream.welcome, records)
                    return self.check(batch, stream.send(batch))
            except (grpc.RpcError, Ended) as error:
                passing = isinstance(error, Ended) or error.code() in PASSING
                if not passing or attempt + 1 == ATTEMPTS:
                    raise
                time.sleep(1 << attempt)

    def seal(self, welcome, records):
        if self.place is None:
            # An epoch of our own, greater than all before; its chain begins with the end of the one before.
            epoch = max(time.time_ns(), welcome.epoch + 1)
            before = welcome.head if welcome.epoch else bytes(32)
            opening = derive("epoch", welcome.origin.encode(), welcome.source, struct.pack(">Q", epoch), before)
            self.place = (epoch, 0, opening)
        epoch, first, previous = self.place
        secret = os.urandom(32)
        leaves = [
            hashlib.sha256(b"\0" + commitment(secret, index, parts)).digest() for index, parts in enumerate(records)
        ]
        numbers = struct.pack(">QQI", epoch, first, len(records))
        content = block(records)
        return ingest.Batch(
            epoch=epoch,
            first=first,
            count=len(records),
            previous_hash=previous,
            hash=derive("batch", previous, welcome.source, numbers, root(leaves)),
            secret=secret,
            block=zstandard.ZstdCompressor().compress(content),
            block_bytes=len(content),
        )

    def check(self, batch, ack):
        receipt = ack.receipt
        ours = (batch.epoch, batch.first, batch.count, batch.hash)
        if (receipt.epoch, receipt.first, receipt.count, receipt.batch_hash) != ours:
            raise Refused("the receipt is for something else than the batch")
        self.place = (batch.epoch, batch.first + batch.count, batch.hash)
        return list(range(receipt.sequence, receipt.sequence + receipt.count))


class Stream:
    """One call of Append: hello and welcome, then batches."""

    def __init__(self, stub):
        self.requests = queue.Queue()
        self.responses = stub.Append(iter(self.requests.get, None), timeout=ANSWER_S)
        # Epoch 0 asks what is known of us.
        hello = ingest.Hello(protocol=1, agent="panel.py", clock_unix_nano=time.time_ns())
        self.requests.put(ingest.AppendRequest(hello=hello))
        self.welcome = self.answer("welcome")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.requests.put(None)
        self.responses.cancel()

    def send(self, batch):
        self.requests.put(ingest.AppendRequest(batch=batch))
        return self.answer("ack")

    def answer(self, wanted):
        for response in self.responses:
            kind = response.WhichOneof("message")
            if kind == wanted:
                return getattr(response, kind)
            if kind == "refusal":
                raise Refused(response.refusal.message)
        raise Ended(f"the stream ended without {wanted}")


if __name__ == "__main__":
    address, certificates, name, *activities = sys.argv[1:]
    journal = Journal(address, certificates, name)
    # One batch each, on one chain.
    for activity in activities:
        for sequence in journal.write([json.loads(activity)]):
            print(json.dumps({"sequence": sequence}), flush=True)

#!/usr/bin/env python3
"""Verifies an evidence file by a trust file: written from crates/model/FORMAT.md alone.

    verify_evidence.py CASE.sigillo TRUST

Needs Python's standard library and the packages blake3 and pynacl. Prints one JSON object. Exits with 0 if everything holds, 1 if
not, 6 if fewer witnesses have cosigned than the trust file asks for. Does not read time-stamp tokens and explains no removals.
"""

import base64
import hashlib
import json
import struct
import sys

import blake3
import nacl.exceptions
import nacl.signing

MAGIC = b"sigillo evidence v1\n"
# Kind: bytes at most, sections at most.
KINDS = {
    1: (128 << 10, 1), 2: (1 << 20, 1), 3: (64 << 10, 64), 4: (64 << 10, 1), 5: (72 << 10, 1024), 6: (1 << 10, 16),
    7: (4 << 20, 1 << 62), 8: (8 << 10, 1), 9: (8 << 10, 16), 10: (64 << 10, 64), 11: (1 << 20, 4096), 12: (1 << 20, 64),
    13: (64, 1), 14: (64 << 10, 1),
}
# In this order they stand in a file.
ORDER = [1, 2, 3, 4, 5, 6, 11, 7, 8, 9, 10, 12, 13, 14]
AUDITOR = b"\xffsigillo auditor v1"
TIMED = {b"\x04": b"cosignature/v1\n", AUDITOR: b"sigillo auditor v1\n"}


class Altered(Exception):
    """The file is not what it should be."""


def check(holds, what):
    if not holds:
        raise Altered(what)


def derive(use, *pieces):
    return blake3.blake3(b"".join(pieces), derive_key_context="sigillo 2026 v1 " + use).digest()


def sha256(*pieces):
    return hashlib.sha256(b"".join(pieces)).digest()


def leaf(entry):
    return sha256(b"\0", entry)


def node(left, right):
    return sha256(b"\1", left, right)


class Bytes:
    """Reads fields from bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        check(count <= len(self.data) - self.at, "lengths do not add up")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def hashes(self):
        return [self.take(32) for _ in range(self.number(1))]

    def rest(self):
        return self.take(len(self.data) - self.at)

    def end(self):
        check(self.at == len(self.data), "bytes are left over")


class Key:
    """A verifier key."""

    def __init__(self, text):
        self.name, key_id, key = text.split("+", 2)
        key = base64.b64decode(key, validate=True)
        self.type, self.public = key[:-32], key[-32:]
        self.id = sha256(self.name.encode(), b"\n", key)[:4]
        check(self.id.hex() == key_id and self.type in (b"\1", b"\4", AUDITOR), "not a key: " + text)

    def verify(self, text, signature):
        """The time of the signature, 0 for keys without; raises if it does not hold."""
        time = 0
        if self.type in TIMED:
            time = int.from_bytes(signature[:8], "big")
            text, signature = TIMED[self.type] + b"time %d\n" % time + text, signature[8:]
        try:
            nacl.signing.VerifyKey(self.public).verify(text, signature)
        except (nacl.exceptions.BadSignatureError, nacl.exceptions.ValueError, ValueError) as error:
            raise Altered("the signature of %s does not verify" % self.name) from error
        return time


def parse_note(note):
    """Text and signatures: (name, key id, signature)."""
    check(note.endswith(b"\n") and b"\n\n" in note, "not a note")
    text, lines = note.rsplit(b"\n\n", 1)
    signatures = []
    for line in lines[:-1].split(b"\n"):
        dash, name, data = line.decode().split(" ")
        check(dash == "\u2014", "not a signature line")
        data = base64.b64decode(data, validate=True)
        signatures.append((name, data[:4], data[4:]))
    return text + b"\n", signatures


def verify_note(note, keys):
    """Text, and which keys have signed when."""
    text, signatures = parse_note(note)
    signed = [
        (key, key.verify(text, signature))
        for name, key_id, signature in signatures
        for key in keys
        if (key.name, key.id) == (name, key_id)
    ]
    return text, signed


class Trust:
    """A trust file."""

    def __init__(self, text):
        self.keys = {"log": [], "recovery": [], "receipt": [], "officer": [], "auditor": [], "exporter": []}
        self.witnesses, self.groups, self.quorum = {}, {}, None
        for line in text.split("\n"):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] in self.keys:
                self.keys[words[0]].append(Key(words[1]))
            elif words[0] == "witness":
                self.witnesses[words[1]] = Key(words[2])
            elif words[0] == "group":
                members = words[3:]
                least = {"all": len(members), "any": 1}.get(words[2]) or int(words[2])
                self.groups[words[1]] = (least, members)
            elif words[0] == "quorum":
                self.quorum = words[1]
            else:
                check(words[0] == "tsa", "unknown line in the trust file: " + line)
        check(self.quorum is not None, "the trust file has no quorum")

    def met(self, name, signed):
        if name == "none":
            return True
        if name in self.groups:
            least, members = self.groups[name]
            return sum(self.met(member, signed) for member in members) >= least
        return name in signed


class Verifier:
    def __init__(self, file, trust):
        self.file, self.trust = file, trust
        self.digest, self.length = hashlib.sha256(), 0
        self.rotations, self.earlier, self.runs, self.proofs, self.names = [], [], [], [], set()
        self.stack, self.at, self.next, self.first, self.chain, self.time = [], 0, 0, None, None, 0
        self.records = self.withheld = 0
        self.counters = None
        self.heads, self.said = [], {}

    # The container

    def read(self, count):
        data = self.file.read(count)
        check(len(data) == count, "the file was cut off")
        return data

    def run(self):
        magic = self.file.read(len(MAGIC))
        check(magic == MAGIC, "not an evidence file of version 1")
        self.cover(magic)
        last, count, kind = -1, 0, 0
        while kind != 14:
            header = self.read(5)
            kind, length = struct.unpack(">BI", header)
            check(kind in KINDS, "a section of an unknown kind: %d" % kind)
            place = ORDER.index(kind)
            check(place >= last, "a section may not stand here: %d" % kind)
            check(not any(KINDS[one][1] == 1 for one in ORDER[last + 1 : place]), "a section is missing")
            count = count + 1 if place == last else 1
            check(length <= KINDS[kind][0] and count <= KINDS[kind][1], "a section is too long, or one too many")
            payload = self.read(length)
            if kind != 14:
                self.cover(header + payload)
            getattr(self, "section_%d" % kind)(payload)
            last = place
        check(self.file.read(1) == b"", "bytes follow the end")
        return self.report()

    def cover(self, data):
        self.digest.update(data)
        self.length += len(data)

    def section_1(self, payload):
        fields = Bytes(payload)
        self.origin = fields.take(fields.number(2)).decode()
        before = fields.take(32)
        fields.take(8)
        self.who = fields.take(fields.number(2)).decode()
        self.why = fields.take(fields.number(2)).decode()
        self.query = fields.take(fields.number(4)).decode()
        fields.take(16)
        fields.end()
        origin = self.origin.encode()
        self.genesis = derive("genesis", struct.pack(">H", len(origin)), origin, before)

    def section_2(self, payload):
        pass

    section_12 = lambda self, payload: self.section_10(payload)

    # What the sources have signed

    def section_11(self, payload):
        fields = Bytes(payload)
        head_at, head = fields.number(8), fields.take(fields.number(2))
        named_at, named = fields.number(8), fields.take(fields.number(2))
        first, previous, batches = fields.number(8), fields.take(32), []
        for _ in range(fields.number(4)):
            count, form = fields.number(4), fields.number(1)
            check(0 < count <= 16384 and form in (0, 1), "a batch is laid out wrongly")
            batches.append((count, [fields.take(32) for _ in range(fields.number(2))] if form else fields.take(32)))
        fields.end()
        said, before = read_head(head), read_head(named)
        if before is None:
            start, origin, source, key, end = named.decode().split("\n")
            check((start, end) == ("sigillo source key v1", ""), "nothing names the key of a head")
            before = {"origin": origin, "source": source, "time": 0, "next_key": base64.b64decode(key, validate=True)}
        check(said is not None and said["time"] > before["time"] and named_at < head_at, "a head is out of order")
        check((said["origin"], said["source"]) == (self.origin, before["source"]), "a head is of another source")
        check(before["origin"] == self.origin, "a head is of another journal")
        text, signatures = parse_note(head)
        name = "head-" + said["source"]
        key_id = sha256(name.encode(), b"\n\1", before["next_key"])[:4]
        check(len(signatures) == 1 and signatures[0][:2] == (name, key_id), "a head that another key has signed")
        try:
            nacl.signing.VerifyKey(before["next_key"]).verify(text, signatures[0][2])
        except nacl.exceptions.BadSignatureError:
            raise Altered("the signature under a head does not hold")
        identity = (bytes.fromhex(said["source"]), said["epoch"])
        rest = [one for one in self.heads if one["id"] == identity]
        check(first < said["next"] and (not rest or first >= rest[-1]["next"]), "heads are out of order")
        self.heads.append({"id": identity, "first": first, "previous": previous, "batches": batches, "next": said["next"],
                           "hash": said["hash"], "stated": {head_at: head, named_at: named}, "shown": {}})

    def follow(self, identity, number, commitment):
        for head in self.heads:
            if head["id"] == identity and head["first"] <= number < head["next"]:
                head["shown"][number] = leaf(commitment)

    def signed(self, head):
        """None, or why the records do not lead to the head."""
        missing = [at for at, text in head["stated"].items() if self.said.get(at) != text]
        if missing:
            return "record %d does not say what it should" % missing[0]
        at, value = head["first"], head["previous"]
        for count, given in head["batches"]:
            shown = {number - at: value for number, value in head["shown"].items() if at <= number < at + count}
            if isinstance(given, bytes) == bool(shown):
                return "a batch is proved in the wrong way"
            root, rest = (given, []) if isinstance(given, bytes) else shared_root(0, count, shown, given)
            if rest or root is None:
                return "a batch has not as many hashes as needed"
            source, epoch = head["id"]
            value = derive("batch", value, source, struct.pack(">QQI", epoch, at, count), root)
            at += count
        return None if (at, value) == (head["next"], head["hash"]) else "the records do not lead to a head"

    def section_13(self, payload):
        check(len(payload) == 64, "the tools are laid out wrongly")

    # Checkpoints

    def section_3(self, payload):
        text, signed = verify_note(payload, self.trust.keys["recovery"])
        check(signed, "a rotation that no recovery key has signed")
        head, origin, size, key, end = text.decode().split("\n")
        check((head, origin, end) == ("sigillo rotation v1", self.origin, ""), "not a rotation of this journal")
        check(not self.rotations or self.rotations[-1][0] <= int(size), "rotations out of order")
        self.rotations.append((int(size), Key(key)))

    def judge(self, note):
        """Size, root, quorum and its time, auditors."""
        names = {key.public: name for name, key in self.trust.witnesses.items()}
        logs = self.trust.keys["log"] + [key for _, key in self.rotations]
        keys = logs + list(self.trust.witnesses.values()) + self.trust.keys["auditor"]
        text, signed = verify_note(note, keys)
        origin, size, root, end = text.decode().split("\n")
        size, root = int(size), base64.b64decode(root, validate=True)
        check(origin == self.origin and end == "" and len(root) == 32, "not a checkpoint of this journal")
        by_log = [key for key, _ in signed if key.type == b"\1" and key.name == origin]
        check(by_log, "the log has not signed the checkpoint")
        places = [place for place, (_, key) in enumerate(self.rotations) if key.public == by_log[0].public]
        place = places[-1] if places else -1
        since = self.rotations[place][0] if places else 0
        check(since <= size, "signed with a key of later")
        check(place + 1 == len(self.rotations) or size <= self.rotations[place + 1][0], "signed with an old key")
        witnesses = [(names[key.public], time) for key, time in signed if key.type == b"\4"]
        auditors = [key.name for key, _ in signed if key.type == AUDITOR]
        quorum = self.trust.met(self.trust.quorum, {name for name, _ in witnesses})
        times = [
            since
            for _, since in witnesses
            if self.trust.quorum != "none"
            and self.trust.met(self.trust.quorum, {name for name, time in witnesses if time >= since})
        ]
        return size, root, quorum, max(times, default=None), auditors

    def section_4(self, payload):
        self.size, self.root, self.quorum, time, self.auditors = self.judge(payload)
        self.existed = [(self.size, time)] if time is not None else []

    def section_5(self, payload):
        fields = Bytes(payload)
        proof = fields.hashes()
        size, root, _, time, _ = self.judge(fields.rest())
        check((self.earlier[-1] if self.earlier else 0) < size < self.size, "an earlier checkpoint out of order")
        self.earlier.append(size)
        self.consistent(size, root, proof)
        if time is not None:
            self.existed.append((size, time))

    def consistent(self, size, root, proof):
        """RFC 9162, section 2.1.4.2."""
        if size & (size - 1) == 0:
            proof = [root] + proof
        check(proof, "no proof of consistency")
        low, high = size - 1, self.size - 1
        while low & 1:
            low, high = low >> 1, high >> 1
        old = new = proof[0]
        for sibling in proof[1:]:
            check(high, "the proof of consistency is too long")
            if low & 1 or low == high:
                old, new = node(sibling, old), node(sibling, new)
                while low and not low & 1:
                    low, high = low >> 1, high >> 1
            else:
                new = node(new, sibling)
            low, high = low >> 1, high >> 1
        check((old, new, high) == (root, self.root, 0), "the log was rewritten")

    # Records

    def section_6(self, payload):
        fields = Bytes(payload)
        kind, identity = fields.number(1), fields.take(16)
        first, after, end = fields.number(8), fields.number(8), fields.number(1)
        name = fields.take(fields.number(1))
        fields.end()
        check(kind in (1, 2) and first < after and end <= 1, "a run is laid out wrongly")
        same = [run for run in self.runs if (run["kind"], run["id"]) == (kind, identity)]
        check(not same, "two runs are of one source or tenant")
        check(not name or derive(["source id", "tenant id"][kind - 1], name)[:16] == identity, "a name is not that of its id")
        self.runs.append({"kind": kind, "id": identity, "from": first, "to": after, "end": end, "name": name.decode(),
                          "next": first, "last": -1, "fault": None})

    def section_7(self, payload):
        fields = Bytes(payload)
        first, before, gap, count = fields.number(8), fields.take(32), fields.hashes(), fields.number(4)
        check(count > 0 and first < self.size, "an empty section of records")
        check(self.first is None or first != self.next or before == self.chain, "the records do not follow")
        check(first != 0 or before == self.genesis, "not the beginning of this journal")
        self.gap(first, gap)
        self.first = first if self.first is None else self.first
        self.next, self.chain = first, before
        for _ in range(count):
            self.record(fields)
        fields.end()

    def record(self, fields):
        envelope = fields.take(88)
        (version, flags, klass, _, zero, sequence, time, source, epoch, number, source_count, tenant, tenant_count) = struct.unpack(
            ">BBHHHQQ16sQQQ16sQ", envelope)
        check(version == 1 and flags < 8 and zero == 0, "not an envelope")
        check(sequence == self.next < self.size and time >= self.time, "a record out of order")
        present, shown, gone = fields.number(1), fields.number(1), fields.number(1)
        content = None
        if present == 0:
            check(shown == 0 and gone in (0, 8), "a record is laid out wrongly")
            commitment = fields.take(32)
            self.withheld += 1
        else:
            check(present < 8 and shown & ~present == 0 and gone & ~(present & ~shown) == 0, "a record is laid out wrongly")
            hashes, room = [], 1 << 20
            for part in range(3):
                if not present >> part & 1:
                    continue
                if shown >> part & 1:
                    salt, length = fields.take(32), fields.number(4)
                    data = fields.take(length)
                    room -= length
                    hashes.append(derive("part", salt, bytes([part]), struct.pack(">Q", length), data))
                    content = data if part == 2 else content
                else:
                    hashes.append(fields.take(32))
            check(room >= 0, "a record is too long")
            commitment = derive("commit", bytes([present]), *hashes)
        self.chain = derive("chain", self.chain, envelope, commitment)
        self.push(1, leaf(self.chain))
        self.next, self.time, self.records = sequence + 1, time, self.records + 1
        for run in self.runs:
            if run["id"] == (source, tenant)[run["kind"] - 1]:
                self.count(run, (source_count, tenant_count)[run["kind"] - 1])
        self.follow((source, epoch), number, commitment)
        own = klass == 0 and source == derive("source id", b"journal")[:16]
        if own and content is not None and any(sequence in head["stated"] for head in self.heads):
            self.said[sequence] = original(content)
        if own and content is not None and sequence == self.size - 1:
            self.counters = original(content)

    def count(self, run, number):
        check(number > run["last"], "a number was used twice: the journal was forged")
        run["last"] = number
        if run["from"] <= number < run["to"]:
            if number != run["next"]:
                run["fault"] = run["fault"] or "number %d is missing" % run["next"]
            run["next"] = number + 1
        elif run["end"] and number >= run["to"]:
            run["fault"] = run["fault"] or "number %d follows" % number

    # The tree

    def gap(self, to, hashes):
        check(self.at <= to <= self.size, "a gap out of order")
        for given in hashes:
            left = to - self.at
            check(left > 0, "too many hashes")
            room = 1 << (left - 1).bit_length()
            if to == self.size and self.at % room == 0:
                width = left
            else:
                width = 1 << (left.bit_length() - 1)
                if self.at:
                    width = min(width, self.at & -self.at)
            self.push(width, given)
        check(self.at == to, "too few hashes")

    def push(self, width, value):
        start = self.at
        self.at += width
        while width & (width - 1) == 0 and start & width:
            start, left = self.stack.pop()
            value, width = node(left, value), 2 * width
        self.stack.append((start, value))

    def section_8(self, payload):
        fields = Bytes(payload)
        self.gap(self.size, fields.hashes())
        fields.end()
        root = None
        for _, value in reversed(self.stack):
            root = value if root is None else node(value, root)
        check((sha256() if root is None else root) == self.root, "the records do not lead to the checkpoint's root")

    # The rest

    def section_9(self, payload):
        fields = Bytes(payload)
        self.proofs.append((fields.number(1), fields.number(8), fields.number(8), fields.hashes()))
        fields.end()

    def section_10(self, payload):
        fields = Bytes(payload)
        name = fields.take(fields.number(1)).decode("ascii")
        plain = all(c.isalnum() or c in "-_." for c in name)
        check(0 < len(name) <= 100 and plain and name[0].isalnum() and name[-1] != ".", "not a name")
        check(name.lower() not in self.names, "a name stands twice")
        self.names.add(name.lower())

    def section_14(self, payload):
        expected = b"sigillo evidence v1\n%s\n%d\n%s\n" % (
            self.origin.encode(), self.length, self.digest.hexdigest().encode())
        self.exporters = []
        if payload != expected:
            text, signed = verify_note(payload, self.trust.keys["exporter"])
            check(text == expected, "the digest is not that of the file")
            self.exporters = [key.name for key, _ in signed]

    def completeness(self, index, run):
        if run["fault"] is None and run["next"] != run["to"]:
            run["fault"] = "the numbers from %d on are missing" % run["next"]
        if run["fault"] is None and run["end"]:
            run["fault"] = self.reaches_end(index, run)
        if run["fault"]:
            return "not shown complete: " + run["fault"]
        return "complete, checked by an auditor" if self.auditors else "complete by the provider's word"

    def reaches_end(self, index, run):
        proofs = [proof for proof in self.proofs if proof[0] == index]
        if not proofs:
            return "nothing shows its end"
        lines = (self.counters or b"").decode(errors="replace").split("\n")
        if len(lines) < 6 or lines[:2] != ["sigillo counters v1", self.origin]:
            return "the last record is not a counters record"
        salt, root, count = bytes.fromhex(lines[2]), base64.b64decode(lines[3], validate=True), int(lines[4])
        _, epoch, place, siblings = proofs[0]
        value = leaf(derive("counter", salt, bytes([run["kind"]]), run["id"], struct.pack(">QQ", epoch, run["to"])))
        if place >= count or (epoch and run["kind"] == 2) or not included(value, place, count, siblings, root):
            return "the counters record does not hold this entry"
        return None

    def report(self):
        runs = [self.completeness(index, run) for index, run in enumerate(self.runs)]
        existed = [min(time for size, time in self.existed if size > at) if self.existed else None
                   for at in ([] if self.first is None else [self.first, self.next - 1])]
        return {
            "origin": self.origin, "size": self.size, "root": self.root.hex(), "records": self.records,
            "commitments_only": self.withheld, "quorum": self.quorum, "existed_by": existed, "runs": runs,
            "exporters": self.exporters, "who": self.who, "why": self.why, "query": self.query,
            "signed": [len(head["shown"]) for head in self.heads],
            "findings": [run["fault"] for run in self.runs if run["fault"]] + [text for text in map(self.signed, self.heads) if text],
        }


def read_head(note):
    """What a source's head says; None if it is something else."""
    if not note.startswith(b"sigillo head v1\n"):
        return None
    _, origin, source, place, value, time, _, key, end = parse_note(note)[0].decode().split("\n")
    epoch, following = place.split(" ")
    check(end == "", "a head is laid out wrongly")
    return {"origin": origin, "source": source, "epoch": int(epoch), "next": int(following), "hash": bytes.fromhex(value),
            "time": int(time), "next_key": base64.b64decode(key, validate=True)}


def shared_root(start, end, shown, hashes):
    """The root over the leaves from start to end, and the hashes that are left."""
    if not any(start <= place < end for place in shown):
        return (hashes[0], hashes[1:]) if hashes else (None, [])
    if end - start == 1:
        return shown[start], hashes
    middle = start + (1 << ((end - start - 1).bit_length() - 1))
    left, hashes = shared_root(start, middle, shown, hashes)
    right, hashes = shared_root(middle, end, shown, hashes)
    return (None, []) if left is None or right is None else (node(left, right), hashes)


def included(value, index, size, siblings, root):
    """RFC 9162, section 2.1.3.2."""
    last = size - 1
    for sibling in siblings:
        if last == 0:
            return False
        if index & 1 or index == last:
            value = node(sibling, value)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            value = node(value, sibling)
        index, last = index >> 1, last >> 1
    return last == 0 and value == root


def original(content):
    """Field 3 of a content part (protobuf), or None."""
    at, found = 0, None

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = content[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    try:
        while at < len(content):
            key = varint()
            if key & 7 == 0:
                varint()
            elif key & 7 == 2:
                length = varint()
                if key >> 3 == 3:
                    found = content[at : at + length]
                at += length
            else:
                at += {1: 8, 5: 4}[key & 7]
    except (IndexError, KeyError):
        return None
    return found if at == len(content) else None


def main():
    with open(sys.argv[2], encoding="utf-8") as file:
        trust = Trust(file.read())
    try:
        with open(sys.argv[1], "rb") as file:
            report = Verifier(file, trust).run()
    except (Altered, ValueError) as error:
        print(json.dumps({"verdict": "altered", "findings": [str(error)]}))
        return 1
    report["verdict"] = "altered" if report["findings"] else "proved"
    print(json.dumps(report))
    return 1 if report["findings"] else 0 if report["quorum"] else 6


if __name__ == "__main__":
    sys.exit(main())

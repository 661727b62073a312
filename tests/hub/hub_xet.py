"""Xet, where the Hub keeps large files: its storage of chunks, for the unmodified client `hf_xet`.

After the specification at https://huggingface.co/docs/xet. A client cuts a file into chunks, sends them together in
xorbs, and then a shard, which lists the chunks of every file. What the real service does beyond that is not here: it
knows the chunks of all its users (here every question for a known chunk is answered with no), it checks the hashes of
chunks, and it hands uploads on to other hosts.
"""

import secrets
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from hub_http import Call, Reply, as_json
from hub_repos import Accounts, Blobs, Refusal, Repo, Token


BOOKEND = b"\xff" * 32  # ends the list of files in a shard
ENTRY = 48  # bytes; everything in a shard is made of them
WITH_CHECKS, WITH_SHA256 = 1 << 31, 1 << 30  # flags of a file in a shard


@dataclass(frozen=True)
class Chunk:
    start: int  # of its header, in the xorb
    end: int
    content: bytes


@dataclass(frozen=True)
class Term:
    """Chunks `first` to `last` (exclusive) of a xorb, which are a part of a file."""

    xorb: str
    first: int
    last: int
    size: int  # bytes of the file


@dataclass
class Xet:
    """The chunks of one Hub. `hashes` are the client's names of files by SHA-256 of the content."""

    accounts: Accounts
    blobs: Blobs
    url: str  # an address of another host than the Hub's
    xorbs: dict[str, list[Chunk]] = field(default_factory=dict)
    packed: dict[str, str] = field(default_factory=dict)  # xorb -> SHA-256 of its bytes as they were sent
    files: dict[str, list[Term]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    lent: dict[str, tuple[Repo, str]] = field(default_factory=dict)  # access tokens
    lock: threading.RLock = field(default_factory=threading.RLock)

    def lend(self, repo: Repo, token: Token | None, right: str) -> Reply:
        """An access token, as the Hub's route for it answers."""
        access, expires = f"xet_{secrets.token_hex(16)}", int(time.time()) + 3600
        self.accounts.tokens[access] = token or Token("anonymous", "read")
        self.lent[access] = (repo, right)
        headers = {"X-Xet-Cas-Url": self.url, "X-Xet-Access-Token": access, "X-Xet-Token-Expiration": str(expires)}
        return as_json({"accessToken": access, "exp": expires, "casUrl": self.url}, headers=headers)

    def answer(self, call: Call) -> Reply:
        body = call.body()
        with self.lock:
            repo, right = self.lent.get((call.authorization or "").removeprefix("Bearer "), (None, ""))
            if repo is None:
                raise Refusal(401, "Unauthorized")
            match call.method, *call.segments[1:]:
                case "GET", "v1", "reconstructions", name:
                    return self._reconstruction(name, call.range)
                case "POST", "v1", "xorbs", "default", name if right == "write":
                    return self._add_xorb(name, body)
                case "POST", ("v1" | "shards"), *_ if right == "write" and call.segments[-1] == "shards":
                    return self._add_shard(repo, body)
        raise Refusal(404, "Not found")  # such as newer versions of these, which clients ask for first

    def _add_xorb(self, name: str, body: bytes) -> Reply:
        new = name not in self.xorbs
        self.xorbs[name] = unpacked(body)
        self.packed[name] = self.blobs.add([body])[0]
        return as_json({"was_inserted": new})

    def _add_shard(self, repo: Repo, body: bytes) -> Reply:
        for name, terms in read_shard(body).items():
            chunks = [chunk for term in terms for chunk in self.xorbs[term.xorb][term.first : term.last]]
            sha256, size = self.blobs.add(chunk.content for chunk in chunks)
            self.files[name], self.hashes[sha256], repo.lfs[sha256] = terms, name, size
        return as_json({"result": 1})

    def _reconstruction(self, name: str, wanted: str | None) -> Reply:
        terms = self.files.get(name)
        if terms is None:
            raise Refusal(404, "Not found")
        if wanted and int(wanted.removeprefix("bytes=").partition("-")[0]) >= sum(term.size for term in terms):
            raise Refusal(416, "Range Not Satisfiable")
        listed = [
            {"hash": term.xorb, "unpacked_length": term.size, "range": {"start": term.first, "end": term.last}}
            for term in terms
        ]
        places = {name: [self._place(name, terms)] for name in {term.xorb for term in terms}}
        return as_json({"offset_into_first_range": 0, "terms": listed, "fetch_info": places})

    def _place(self, xorb: str, terms: list[Term]) -> dict[str, Any]:
        """Where the client finds those chunks of a xorb that a file needs."""
        first, last = min(t.first for t in terms if t.xorb == xorb), max(t.last for t in terms if t.xorb == xorb)
        chunks = self.xorbs[xorb][first:last]
        return {
            "range": {"start": first, "end": last},
            "url": f"{self.url.removesuffix('/cas')}/xorbs/{self.packed[xorb]}",
            "url_range": {"start": chunks[0].start, "end": chunks[-1].end - 1},
        }


def unpacked(xorb: bytes) -> list[Chunk]:
    """Each chunk follows a header of 8 bytes: version, packed size, way of packing, size."""
    chunks, at = [], 0
    while at < len(xorb) and xorb[at] == 0:  # what ends a xorb begins with another letter
        packed, way, size = int.from_bytes(xorb[at + 1 : at + 4], "little"), xorb[at + 4], xorb[at + 5 : at + 8]
        end = at + 8 + packed
        chunks.append(Chunk(at, end, _unpack(xorb[at + 8 : end], way, int.from_bytes(size, "little"))))
        at = end
    return chunks


def _unpack(packed: bytes, way: int, size: int) -> bytes:
    if way == 0:
        return packed
    content = pa.Codec("lz4").decompress(packed, decompressed_size=size, asbytes=True)
    if way == 1:
        return content
    grouped, at = bytearray(size), 0  # every fourth byte together
    for first in range(4):
        number = len(range(first, size, 4))
        grouped[first::4] = content[at : at + number]
        at += number
    return bytes(grouped)


def read_shard(shard: bytes) -> dict[str, list[Term]]:
    """The terms of every file in it, which begin after the shard's own header."""
    files: dict[str, list[Term]] = {}
    at = ENTRY
    while (name := shard[at : at + 32]) != BOOKEND:
        flags, number = struct.unpack_from("<II", shard, at + 32)
        terms = []
        for place in range(at + ENTRY, at + ENTRY * (number + 1), ENTRY):
            _, size, first, last = struct.unpack_from("<IIII", shard, place + 32)
            terms.append(Term(hash_text(shard[place : place + 32]), first, last, size))
        files[hash_text(name)] = terms
        more = (number if flags & WITH_CHECKS else 0) + bool(flags & WITH_SHA256)
        at += ENTRY * (1 + number + more)
    return files


def hash_text(raw: bytes) -> str:
    """Four numbers of 8 bytes, the lowest first, in hexadecimal."""
    return "".join(raw[at : at + 8][::-1].hex() for at in range(0, 32, 8))


def xet_headers(xet: Xet, page: str, repo: Repo, sha: str, sha256: str) -> dict[str, str]:
    """What the Hub says of a file that Xet has, where its plain address is asked for."""
    if sha256 not in xet.hashes:
        return {}
    route = f"{page}/api/{repo.type}s/{repo.id}/xet-read-token/{sha}"
    return {"X-Xet-Hash": xet.hashes[sha256], "Link": f'<{route}>; rel="xet-auth"'}

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Lists of Kubernetes' built-in kinds in their protobuf form, of which only the fields asked for are unpacked.

A node of a large cluster is 35 KB, nearly all of it images, managed fields and labels that no rule asks for. As JSON
all of it has to be parsed; here it is stepped over, and the API server has less to do as well. What comes out has the
shape of the JSON. Items are read while the answer is still coming in, so memory holds one of them.

The field numbers are those of k8s.io/api/core/v1/generated.proto; a published one never changes its meaning.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
LIST_META, ITEM = 1, 2
MOST_KNOWN = 4096

# (dictionary, data, start, stop, end): puts what data[start:stop] says into the dictionary, and returns where to go on;
# that is `stop`, or further on where it took the fields behind as well, of a message that goes on to `end`.
Unpack = Callable[[dict, bytes, int, int, int], int]
Fields = Mapping[int, Unpack]


class Malformed(ValueError):
    """Bytes that are no such message, or that end too early."""


def varint(data: bytes, pos: int) -> tuple[int, int]:
    """(number, position behind it)"""
    number = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, pos
        shift += 7
        if shift > 63:
            raise Malformed("a number is too long")


def read(data: bytes, pos: int, end: int, fields: Fields) -> dict:
    """The wanted fields of one message. Keys of `fields` are tags: field number * 8 + wire type."""
    found: dict = {}
    while pos < end:
        tag = data[pos]
        pos += 1
        if tag > 0x7F:
            tag, pos = varint(data, pos - 1)
        wire = tag & 7
        if wire == 2:
            size = data[pos]
            pos += 1
            if size > 0x7F:
                size, pos = varint(data, pos - 1)
            stop = pos + size
            if stop > end:
                raise Malformed("a field is longer than its message")
            unpack = fields.get(tag)
            pos = stop if unpack is None else unpack(found, data, pos, stop, end)
        elif wire == 0:
            unpack = fields.get(tag)
            start = pos
            number, pos = varint(data, pos)
            if unpack is not None and number:
                unpack(found, data, start, pos, end)
        elif wire == 1:
            pos += 8
        elif wire == 5:
            pos += 4
        else:
            raise Malformed(f"wire type {wire} is not used by Kubernetes")
    if pos != end:
        raise Malformed("a field is longer than its message")
    return found


# Kinds of fields. Each takes the field's number and its name in JSON, and makes an entry for `fields`.


def text(number: int, name: str) -> tuple[int, Unpack]:
    def unpack(found: dict, data: bytes, pos: int, stop: int, _end: int) -> int:
        # An empty string is absent in JSON.
        if pos < stop:
            found[name] = str(data[pos:stop], "utf-8", "replace")
        return stop

    return number << 3 | 2, unpack


def flag(number: int, name: str) -> tuple[int, Unpack]:
    """True; what is false is absent."""

    def unpack(found: dict, _data: bytes, _pos: int, stop: int, _end: int) -> int:
        found[name] = True
        return stop

    return number << 3, unpack


def message(number: int, name: str, *entries: tuple[int, Unpack]) -> tuple[int, Unpack]:
    fields = dict(entries)

    def unpack(found: dict, data: bytes, pos: int, stop: int, _end: int) -> int:
        found[name] = read(data, pos, stop, fields)
        return stop

    return number << 3 | 2, unpack


def messages(number: int, name: str, *entries: tuple[int, Unpack], only: str = "") -> tuple[int, Unpack]:
    """A list of messages; with `only`, those whose first field (1) is that text."""
    fields = dict(entries)
    first = bytes([0x0A, len(only)]) + only.encode() if only else b""

    def unpack(found: dict, data: bytes, pos: int, stop: int, _end: int) -> int:
        if data.startswith(first, pos, stop):
            found.setdefault(name, []).append(read(data, pos, stop, fields))
        return stop

    return number << 3 | 2, unpack


KEY = text(1, "key")
TEXT_ENTRY = dict([KEY, text(2, "value")])
QUANTITY_ENTRY = dict([KEY, message(2, "value", text(1, "string"))])


def texts(number: int, name: str, prefixes: tuple[str, ...] = (), sample: str = "") -> tuple[int, Unpack]:
    """A map of strings: the keys with these prefixes (all if there are none), and the first one that has the prefix
    `sample`, as a sign that there are such keys."""

    def pair(entry: bytes) -> tuple[str, str]:
        found = read(entry, 0, len(entry), TEXT_ENTRY)
        return found.get("key", ""), found.get("value", "")

    return map_field(number, name, prefixes, sample, pair)


def quantities(number: int, name: str, prefix: str = "") -> tuple[int, Unpack]:
    """A map of quantities: the keys with this prefix."""

    def pair(entry: bytes) -> tuple[str, str]:
        found = read(entry, 0, len(entry), QUANTITY_ENTRY)
        return found.get("key", ""), found.get("value", {}).get("string", "0")

    return map_field(number, name, (prefix,) if prefix else (), "", pair)


def map_field(
    number: int, name: str, prefixes: tuple[str, ...], sample: str, pair: Callable[[bytes], tuple[str, str]]
) -> tuple[int, Unpack]:
    """A map, which is a repeated message of key (1) and value (2): all its entries in one go.

    Of a hundred labels a rule reads twenty; the others cost one comparison each. Those twenty are the same on most
    nodes: what their bytes mean is remembered.
    """
    tag = number << 3 | 2
    wanted = tuple(prefix.encode() for prefix in prefixes) or (b"",)
    sign = sample.encode()
    known: dict[bytes, tuple[str, str]] = {}

    def unpack(found: dict, data: bytes, pos: int, stop: int, end: int) -> int:
        values = found.setdefault(name, {})
        seen = not sign
        while True:
            # The key comes first: Kubernetes writes the fields of a message in their order.
            if stop - pos < 2 or data[pos] != 0x0A:
                raise Malformed("a map's entry does not begin with its key")
            size, start = data[pos + 1], pos + 2
            if size > 0x7F:
                size, start = varint(data, pos + 1)
            wants = data.startswith(wanted, start, start + size)
            if wants or (not seen and data.startswith(sign, start, start + size)):
                seen = seen or not wants
                entry = data[pos:stop]
                both = known.get(entry)
                if both is None:
                    if len(known) >= MOST_KNOWN:
                        known.clear()
                    both = known[entry] = pair(entry)
                values[both[0]] = both[1]
            pos = stop
            if pos >= end or data[pos] != tag:
                return pos
            size, pos = data[pos + 1], pos + 2
            if size > 0x7F:
                size, pos = varint(data, pos - 1)
            stop = pos + size
            if stop > end:
                raise Malformed("a field is longer than its message")

    return tag, unpack


LIST_META_FIELDS = dict([text(2, "resourceVersion"), text(3, "continue")])
TYPE_META_FIELDS = dict([text(1, "apiVersion"), text(2, "kind")])
STATUS_FIELDS = dict([text(3, "message"), text(4, "reason")])


class Stream:
    """Bytes that come in pieces."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = iter(chunks)
        self.data = b""
        self.pos = 0
        self.passed = 0  # What was dropped of the bytes already read.

    def have(self, size: int) -> bool:
        """Waits until so many bytes are there; False if the end comes first."""
        if len(self.data) - self.pos >= size:
            return True
        parts = [self.data[self.pos :]]
        there = len(parts[0])
        while there < size:
            chunk = next(self.chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            there += len(chunk)
        self.passed += self.pos
        self.data, self.pos = b"".join(parts), 0
        return there >= size

    def need(self, size: int) -> None:
        if not self.have(size):
            raise Malformed("the answer ends too early")

    @property
    def offset(self) -> int:
        return self.passed + self.pos

    def number(self) -> int:
        # Ten bytes at most; near the end of the answer there may be fewer.
        self.have(10)
        number, self.pos = varint(self.data, self.pos)
        return number


def open_object(stream: Stream) -> tuple[str, int]:
    """(kind, offset of its end) of the object in an answer; the stream stands at its beginning."""
    stream.need(len(MAGIC))
    if not stream.data.startswith(MAGIC, stream.pos):
        raise Malformed("the answer is no Kubernetes object")
    stream.pos += len(MAGIC)
    kind = ""
    while True:
        tag, size = stream.number(), stream.number()
        if tag == 1 << 3 | 2:
            stream.need(size)
            kind = read(stream.data, stream.pos, stream.pos + size, TYPE_META_FIELDS).get("kind", "")
            stream.pos += size
        elif tag == 2 << 3 | 2:
            return kind, stream.offset + size
        else:
            raise Malformed("the answer is no Kubernetes object")


def read_list(chunks: Iterable[bytes], fields: Fields, metadata: dict) -> Iterator[dict]:
    """The items of a list, as its bytes come in. Puts resourceVersion and continue into `metadata`."""
    stream = Stream(chunks)
    try:
        kind, end = open_object(stream)
        if not kind.endswith("List"):
            raise Malformed(f"the answer is a {kind or 'nameless object'}, not a list")
        while stream.offset < end:
            tag, size = stream.number(), stream.number()
            if tag & 7 != 2:
                raise Malformed("the list has an unknown field")
            stream.need(size)
            start = stream.pos
            stream.pos += size
            if tag >> 3 == LIST_META:
                metadata.update(read(stream.data, start, start + size, LIST_META_FIELDS))
            elif tag >> 3 == ITEM:
                yield read(stream.data, start, start + size, fields)
        if stream.offset != end:
            raise Malformed("the list is longer than it says")
    except IndexError as error:
        raise Malformed("the answer ends too early") from error


def read_status(body: bytes) -> dict:
    """message and reason of a Status object."""
    stream = Stream([body])
    try:
        kind, end = open_object(stream)
        stream.need(end - stream.offset)
        return read(body, stream.pos, end, STATUS_FIELDS) if kind == "Status" else {}
    except IndexError as error:
        raise Malformed("the answer ends too early") from error


def node_fields(labels: tuple[str, ...] = (), sample: str = "", resources: str = "") -> Fields:
    """Fields of a Node: these labels, its condition Ready, and the resources with this prefix."""
    taint = (text(1, "key"), text(2, "value"), text(3, "effect"))
    condition = (text(1, "type"), text(2, "status"))
    capacity, allocatable = quantities(1, "capacity", resources), quantities(2, "allocatable", resources)
    return dict(
        [
            message(1, "metadata", text(1, "name"), texts(11, "labels", labels, sample)),
            message(2, "spec", flag(4, "unschedulable"), messages(5, "taints", *taint)),
            message(3, "status", capacity, allocatable, messages(4, "conditions", *condition, only="Ready")),
        ]
    )


def pod_fields(resources: str = "") -> Fields:
    """Fields of a Pod: where it runs, its labels, and what its containers ask of the resources with this prefix."""
    amounts = message(8, "resources", quantities(1, "limits", resources), quantities(2, "requests", resources))
    container = (text(1, "name"), amounts, text(24, "restartPolicy"))
    return dict(
        [
            message(1, "metadata", text(1, "name"), text(3, "namespace"), texts(11, "labels")),
            message(
                2,
                "spec",
                text(10, "nodeName"),
                messages(2, "containers", *container),
                messages(20, "initContainers", *container),
            ),
            message(3, "status", text(1, "phase")),
        ]
    )

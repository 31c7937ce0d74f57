"""Damage and malice: a mutant of a sound file is a function of its number alone.

Most mutants have bytes changed, as a bad disk or a cut download would; the others are made by somebody who knows the
format and sets its checksums right again, so that what lies behind them is reached.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"-777", b"99999999", b"\xff\xda")
VALUES = (
    *(None, True, -1, 0, 1 << 70, 1e308, float("nan"), "", "x", "\ud800", "../../x", [], {}, [[[]]]),
    *([1, "a"], {"a": {}}, "9" * 5000, [0] * 1000, -0.5),
)
"""What stands in JSON in place of what should."""
LINES = (
    *("a: 2020-01-01", "a: 2020-13-45", "a: 0x_", "a: 0b_", "a: 1:2:3", "a: .inf", "a: !!binary x", "? []", "a: *x"),
    *("a: &x [*x, *x]", "- " * 3000, "[" * 3000, "a: !!python/object/apply:os.mkdir [MARK]", "a: \ud83d", "a: 1_0_"),
    *("a: 1e999", "<<: {a: 1}", "!!set {a}", "a: !!timestamp 1", "{a: b}: c", "a: 99999999999999999999", "a: ~", ": "),
)
"""What stands in YAML in place of a line; of each the name is one that the file has."""


def edited(data: bytes, dice: random.Random, most: int = 6) -> bytes:
    """Some bytes set, flipped, deleted, inserted or repeated, or the end cut off; headers and ends more often."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, most)):
        if not changed:
            break
        near = min(len(changed), 1024)
        at = (dice.randrange(len(changed)), dice.randrange(near), len(changed) - 1 - dice.randrange(near))[
            dice.choice((0, 0, 1, 2))
        ]
        kind = dice.randrange(8)
        if kind == 0:
            changed[at] = dice.randrange(256)
        elif kind in (1, 2):
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 3:
            del changed[at : at + dice.randint(1, 64)]
        elif kind == 4:
            changed[at:at] = dice.randbytes(dice.randint(1, 20))
        elif kind == 5 and dice.random() < 0.3:
            del changed[at:]
        elif kind == 6:
            changed[at:at] = changed[at : at + dice.randint(1, 4096)]
        else:
            extreme = dice.choice(EXTREMES)
            changed[at : at + len(extreme)] = extreme
    return bytes(changed)


def edited_zip(data: bytes, dice: random.Random) -> bytes:
    """Members edited, left out, doubled, renamed or packed, in an archive whose checksums hold."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        infos = source.infolist()
        chosen = dice.randrange(len(infos))
        how = dice.choice(("edit", "edit", "edit", "drop", "double", "rename", "pack"))
        for number, info in enumerate(infos):
            content, name = source.read(info), info.filename
            if number == chosen and how == "drop":
                continue
            if number == chosen and how == "edit":
                head = min(len(content), 128)
                content = (
                    edited(content[:head], dice, 3) + content[head:] if dice.random() < 0.6 else edited(content, dice)
                )
            if number == chosen and how == "rename":
                name = dice.choice((dice.choice(infos).filename, name[:-1], f"../{name}", "\u00fc" * 40))
            packed = zipfile.ZIP_DEFLATED if number == chosen and how == "pack" else info.compress_type
            for _ in range(1 + (number == chosen and how == "double")):
                target.writestr(zipfile.ZipInfo(name), content, packed)
    return out.getvalue()


def edited_tar(data: bytes, dice: random.Random) -> bytes:
    """Bytes changed and checksums of headers set right; or members doubled, left out or in another order."""
    if dice.random() < 0.6:
        changed = bytearray(edited(data, dice, 4))
        for at in range(0, len(changed) - 511, 512):
            header = changed[at : at + 512]
            if header[257:262] == b"ustar":
                changed[at + 148 : at + 156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]))
        return bytes(changed)
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as source, tarfile.open(fileobj=out, mode="w") as target:
        members = [(info, source.extractfile(info).read()) for info in source if info.isfile()]
        place = dice.randrange(len(members))
        how = dice.choice(("double", "drop", "shuffle", "edit", "rename", "link"))
        info, content = members[place]
        if how == "double":
            members.insert(dice.randrange(len(members)), (info, content))
        elif how == "drop":
            del members[place]
        elif how == "shuffle":
            dice.shuffle(members)
        elif how == "edit":
            members[place] = info, edited(content, dice)
        elif how == "rename":
            info.name = dice.choice(
                ("../x.jpg", "/x.jpg", "x", ".jpg", "a" * 300 + ".jpg", dice.choice(members)[0].name)
            )
        else:
            info.type, info.linkname = dice.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)), "/etc/passwd"
        for info, content in members:
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            target.addfile(info, io.BytesIO(content))
    return out.getvalue()


def edited_png(data: bytes, dice: random.Random) -> bytes:
    """Chunks edited, doubled or left out, with their checksums right."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    chosen = dice.randrange(len(chunks))
    how = dice.choice(("edit", "double", "drop", "length"))
    if how == "edit":
        chunks[chosen][1] = edited(chunks[chosen][1], dice, 2)
    elif how == "double":
        chunks.insert(chosen, chunks[chosen])
    elif how == "drop":
        del chunks[chosen]
    out = data[:8]
    for number, (kind, body) in enumerate(chunks):
        length = dice.choice((1 << 31, (1 << 32) - 1, 1 << 20)) if how == "length" and number == chosen else len(body)
        out += struct.pack(">I", length) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def edited_json(data: bytes, dice: random.Random) -> bytes:
    """One value, wherever it is, replaced by another or left out, or a whole of another kind."""
    document = json.loads(data)
    places: list[tuple] = []

    def walk(part) -> None:
        pairs = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in pairs:
            places.append((part, key))
            if isinstance(value, (dict, list)):
                walk(value)

    if isinstance(document, (dict, list)):
        walk(document)
    if not places or dice.random() < 0.03:
        return json.dumps(dice.choice(VALUES)).encode()
    for _ in range(dice.randint(1, 2)):
        part, key = dice.choice(places)
        if isinstance(part, dict) and dice.random() < 0.2:
            part.pop(key, None)
        else:
            part[key] = dice.choice(VALUES)
    text = json.dumps(document)
    return text.replace("null", "[" * 200_000, 1).encode() if dice.random() < 0.01 else text.encode()


def edited_yaml(data: bytes, dice: random.Random) -> bytes:
    """A line replaced by one of those that parsers stumble over."""
    lines = data.decode().splitlines()
    at = dice.randrange(len(lines))
    name = lines[at].partition(":")[0].strip() or "x"
    line = dice.choice(LINES)
    lines[at] = f"{name}{line[1:]}" if line.startswith("a:") else line
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def edited_pickle(data: bytes, dice: random.Random) -> bytes:
    """Steps put in that would make a folder MARK if they were run, or nest, or claim sizes."""
    steps = dice.choice(
        (
            b"cposix\nmkdir\n(VMARK\ntR0",
            b"c__builtin__\neval\n(V__import__('os').mkdir('MARK')\ntR0",
            b"\x8c\x05posix\x8c\x05mkdir\x93(VMARK\ntR0",
            b"cnumpy.core.multiarray\n_reconstruct\n",
            b"(" * 2000,
            b")\x85" * 3000,
            b"\x8a\xff" + b"\xff" * 255,
            b"B\xff\xff\xff\x7f",
            b"\x8e" + b"\xff" * 7 + b"\x7f",
            b"r\xff\xff\xff\x7f",
            b"U\x05numpyU\x05dtype\x93",
            b"2" * 50,
            b"]2a" * 5,
            b"}",
            b"(dS'a'\nI99\ns",
        )
    )
    at = dice.choice((2, dice.randrange(len(data)), len(data) - 1))
    changed = data[:at] + steps + data[at:]
    return changed if dice.random() < 0.6 else edited(changed, dice, 2)


Structured = Callable[[bytes, random.Random], bytes]


def mutant(data: bytes, dice: random.Random, structured: Structured | None, share: float = 0.4) -> tuple[bytes, bool]:
    """A mutant, and whether it is the work of somebody who set its checksums right."""
    if structured is not None and dice.random() < share:
        return structured(data, dice), True
    return edited(data, dice), False

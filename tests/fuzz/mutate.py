"""Random changes of a file, a function of a random generator."""

import io
import json
import struct
import zipfile
import zlib

import numpy as np

_ODD = (0, 1, 2, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**24, 10**9, 2**31 - 1, 2**31, 2**32 - 1)
_ODD += (2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_VALUES = (None, True, False, -1, 0, 1, 0.5, 2.5, 10**9, 2**63, -(2**70), 1e308, "", "x", "1", [])
_VALUES += (
    {},
    [1],
    [[]],
    {"a": 1},
    "float32",
    "false",
    "../../etc/passwd",
    [10**9],
    "\ud800",
    "\0",
)


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """A damaged copy: bytes changed in place, or within the container and then sealed again."""
    inside = _INSIDE.get(content[:4], _text if content[:1] == b"{" else None)
    if content[8:9] == b"{" and rng.random() < 0.4:
        return _safetensors(content, rng)
    if inside is not None and rng.random() < 0.5:
        return inside(content, rng)
    return _bytes(content, rng)


def _bytes(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    # Headers decide most, and lie at either end.
    places = [len(data), 64, 512, len(data)]
    for _ in range(int(rng.choice([1, 1, 1, 2, 4, 16]))):
        if not data:
            break
        near = int(rng.integers(min(len(data), int(rng.choice(places)) or 1)))
        at = len(data) - 1 - near if rng.random() < 0.2 else near
        match int(rng.integers(9)):
            case 0 | 1:
                data[at] ^= 1 << int(rng.integers(8))
            case 2:
                data[at] = int(rng.integers(256))
            case 3 | 4:
                kind = str(rng.choice(["<B", "<H", "<I", "<Q", ">H", ">I", ">Q"]))
                size = struct.calcsize(kind)
                value = _ODD[int(rng.integers(len(_ODD)))] % 2 ** (8 * size)
                data[at : at + size] = struct.pack(kind, value)
            case 5:
                del data[at:]
            case 6:
                del data[at : at + int(rng.integers(1, 40))]
            case 7:
                data[at:at] = data[at : at + int(rng.integers(1, 200))]
            case 8:
                data[at : at + 8] = rng.bytes(int(rng.integers(1, 9)))
    return bytes(data)


def _zip(content: bytes, rng: np.random.Generator) -> bytes:
    """One member changed, with its sum and lengths right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        kind = archive.infolist()[0].compress_type
    chosen = int(rng.integers(len(members)))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", kind) as archive:
        for i, (name, data) in enumerate(members):
            archive.writestr(name, mutate(data, rng) if i == chosen else data)
    return written.getvalue()


def _png(content: bytes, rng: np.random.Generator) -> bytes:
    """One chunk changed, IDAT's pixels unpacked, with its sum right."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    chosen = int(rng.integers(len(chunks)))
    written = content[:8]
    for i, (kind, data) in enumerate(chunks):
        if i == chosen:
            data = zlib.compress(_bytes(zlib.decompress(data), rng)) if kind == b"IDAT" else (
                _bytes(data, rng)
            )  # fmt: skip
        sealed = struct.pack(">I", zlib.crc32(kind + data))
        written += struct.pack(">I", len(data)) + kind + data + sealed
    return written


def _matlab(content: bytes, rng: np.random.Generator) -> bytes:
    """A compressed variable changed inside."""
    kind, size = struct.unpack_from("<II", content, 128)
    if kind != 15:
        return _bytes(content, rng)
    inside = zlib.compress(_bytes(zlib.decompress(content[136 : 136 + size]), rng))
    return content[:128] + struct.pack("<II", 15, len(inside)) + inside


def _text(content: bytes, rng: np.random.Generator) -> bytes:
    return json.dumps(_odd(json.loads(content), rng)).encode()


def _safetensors(content: bytes, rng: np.random.Generator) -> bytes:
    (size,) = struct.unpack_from("<Q", content)
    header = json.dumps(_odd(json.loads(content[8 : 8 + size]), rng)).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def _odd(value, rng: np.random.Generator):
    """JSON with one value, or key, of another kind."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[int(rng.integers(len(keys)))]
        changed = value.copy()
        if isinstance(changed, dict) and rng.random() < 0.15:
            changed["odd" if rng.random() < 0.5 else keys[0]] = changed.pop(key)
        else:
            changed[key] = _odd(value[key], rng)
        return changed
    if rng.random() < 0.02:
        deep: list = []
        for _ in range(int(rng.choice([90, 900]))):
            deep = [deep]
        return deep
    return _VALUES[int(rng.integers(len(_VALUES)))]


_INSIDE = {b"PK\x03\x04": _zip, b"\x89PNG": _png, b"MATL": _matlab}

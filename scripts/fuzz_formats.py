"""Grammars of the file formats that the program reads: each makes files that are almost right.

A grammar builds a file part by part, as the format's own writer does; at any part it may put something else: another
type, a huge or negative number, a count that does not fit, a piece twice. Half of the files are then damaged as bytes.
"""

import functools
import gzip
import io
import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NUMBERS = (0, 1, -1, 7, 28, 255, 256, 784, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 10**400)
TEXTS = (
    "",
    "a",
    "x" * 10_000,
    "\0",
    "\x1b[2J",
    "ü\u202e",
    "../../etc/passwd",
    "/dev/zero",
    "mnist",
    "cnn",
    "NaN",
    "1e999",
)


class Grammar:
    """Random choices, and the values and bytes that all formats need."""

    def __init__(self, generator: random.Random) -> None:
        self.random = generator

    def maybe(self, usual: Any, *others: Any) -> Any:
        """The usual value, or rarely another one."""
        return usual if self.random.random() < 0.9 else self.random.choice(others)

    def number(self, usual: int) -> int:
        """A number that fits, or rarely one that does not."""
        return int(self.maybe(usual, usual - 1, usual + 1, -usual, *NUMBERS))

    def value(self, depth: int = 3) -> Any:
        """Any value of JSON."""
        kind = self.random.randrange(8 if depth else 6)
        simple = (None, True, self.random.choice(NUMBERS), self.random.choice((0.5, float("nan"), float("inf"), 1e308)))
        if kind < 6:
            return (*simple, self.random.choice(TEXTS), [])[kind]
        values = [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        return values if kind == 6 else {self.random.choice(TEXTS): value for value in values}

    def changed(self, value: Any) -> Any:
        """`value` with one part, at any depth, replaced, left out or added."""
        if isinstance(value, dict) and value and self.random.random() < 0.85:
            key = self.random.choice(list(value))
            if self.random.random() < 0.2:
                return {name: part for name, part in value.items() if name != key}
            return value | {key: self.changed(value[key])}
        if isinstance(value, list) and value and self.random.random() < 0.85:
            place = self.random.randrange(len(value))
            return [*value[:place], self.changed(value[place]), *value[place + self.random.randrange(2) :]]
        return self.value()

    def json(self, value: Any) -> bytes:
        """A JSON text of `value` with a change, or rarely something deep, double or not UTF-8."""
        content = json.dumps(self.changed(value)).encode()
        deep = b"[" * 100_000
        return bytes(
            self.maybe(
                content, deep, b'{"a":' * 50_000, content * 2, b"\xff\xfe" + content, content.replace(b'"', b"'")
            )
        )

    def damaged(self, content: bytes) -> bytes:
        """`content` with a flipped bit, or a piece removed, doubled or overwritten."""
        changed = bytearray(content)
        if not changed:
            return b""
        limit = len(changed) if self.random.random() < 0.5 else min(1000, len(changed))
        where, length = self.random.randrange(limit), self.random.choice((1, 4, 64, 5000))
        match self.random.randrange(5):
            case 0:
                changed[where] ^= 1 << self.random.randrange(8)
            case 1:
                del changed[where:]
            case 2:
                changed[where:where] = changed[where : where + length]
            case 3:
                changed[where : where + length] = self.random.randbytes(length)
            case _:
                del changed[where : where + length]
        return bytes(changed)

    def archive(self, entries: dict[str, bytes], *, packs: bool) -> bytes:
        """A zip archive with these entries, some of them renamed, doubled, missing or packed."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compresslevel=1) as archive:
            for name, content in entries.items():
                named = self.maybe(name, "../" + name, "/" + name, name + "\0x", "", name.upper())
                kind = zipfile.ZIP_DEFLATED if packs or self.random.random() < 0.02 else zipfile.ZIP_STORED
                for _ in range(self.maybe(1, 0, 2)):
                    archive.writestr(zipfile.ZipInfo(named), content, kind)
        return buffer.getvalue()


class Opcodes(Grammar):
    """Pickles: state dicts with one part changed, or any opcodes."""

    GLOBALS = (
        "torch._utils _rebuild_tensor_v2",
        "collections OrderedDict",
        "torch FloatStorage",
        "os system",
        "builtins eval",
        "torch.nn.modules.linear Linear",
        "numpy ndarray",
        "torch._utils _rebuild_sparse_tensor",
    )

    def global_name(self, usual: str) -> bytes:
        return b"c" + str(self.maybe(usual, *self.GLOBALS)).replace(" ", "\n").encode() + b"\n"

    def integer(self, usual: int) -> bytes:
        number = self.number(usual)
        if 0 <= number < 2**31:
            return b"J" + struct.pack("<i", number)
        packed = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        return (
            b"\x8a" + bytes([len(packed)]) if len(packed) < 256 else b"\x8b" + struct.pack("<i", len(packed))
        ) + packed

    @staticmethod
    def text(text: str) -> bytes:
        return b"X" + struct.pack("<I", len(text.encode())) + text.encode()

    def sizes(self, usual: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(self.integer, usual)) + b"t"

    def tensor(self, key: int, shape: tuple[int, ...]) -> bytes:
        """A tensor as torch.save writes it: function, storage, offset, sizes, strides, flags; REDUCE."""
        count = int(np.prod(shape))
        strides = tuple(int(np.prod(shape[place + 1 :])) for place in range(len(shape)))
        storage = (
            b"(" + self.text("storage") + self.global_name("torch FloatStorage") + self.text(str(self.number(key)))
        )
        storage += self.text(self.maybe("cpu", "cuda:0", "meta", "")) + self.integer(count) + b"tQ"
        arguments = storage + self.integer(0) + self.sizes(shape) + self.sizes(strides) + b"\x89"
        hooks = self.global_name("collections OrderedDict") + b")R"
        call = self.global_name("torch._utils _rebuild_tensor_v2") + b"(" + arguments + hooks + b"tR"
        return bytes(self.maybe(call, b"N", self.integer(1), call + call, b"(" + arguments + b"t", call[:-1]))

    def state_dict(self, shapes: dict[str, tuple[int, ...]]) -> bytes:
        """The pickle of a state dict."""
        body = b"".join(
            self.text(str(self.maybe(name, *TEXTS))) + self.tensor(key, shape)
            for key, (name, shape) in enumerate(shapes.items())
        )
        return b"\x80" + bytes([self.maybe(2, 4, 5, 0)]) + b"}(" + body + bytes(self.maybe(b"u.", b"u", b"d.", b"b."))

    def soup(self) -> bytes:
        """Any opcodes of all protocols in any order."""
        arguments = {
            "b": b"\x01",
            "C": b"\x03abc",
            "c": b"torch\nload\n",
            "i": b"os\nsystem\n",
            "K": b"\x01",
            "q": b"\x01",
        }
        arguments |= {"h": b"\x01", "X": struct.pack("<I", 2) + b"ls", "J": b"\1\0\0\0", "\x8a": b"\x01\x05"}
        codes = "()[]{}.0129NRQtdlasuobeciKqhXJ\x81\x82\x85\x86\x87\x88\x89\x8a\x8c\x92\x93\x94\x95\x96"
        chosen = self.random.choices(codes, k=self.random.randrange(1, 60))
        return b"\x80\x04" + b"".join(code.encode("latin1") + arguments.get(code, b"") for code in chosen) + b"."

    def tuple_bomb(self) -> bytes:
        """A tuple of shared tuples: 2**100 elements."""
        return b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 100 + b"."


def weights(grammar: Opcodes, shapes: dict[str, tuple[int, ...]], mark: Path) -> bytes:
    """An archive as torch.save writes it."""
    hostile = pickle.dumps(Hostile(mark), protocol=grammar.random.randrange(6))
    pickled = grammar.state_dict(shapes)
    if grammar.random.random() < 0.4:
        pickled = grammar.random.choice((hostile, grammar.soup(), grammar.tuple_bomb(), pickled * 2))
    storages = {f"archive/data/{key}": bytes(4 * int(np.prod(shape))) for key, shape in enumerate(shapes.values())}
    version = bytes(grammar.maybe(b"3\n", b"", b"99999999999\n", b"x"))
    entries = {"archive/data.pkl": pickled, "archive/byteorder": b"little", **storages, "archive/version": version}
    if grammar.random.random() < 0.02:
        return zip_bomb("archive/data/0", "archive/data.pkl")
    return bytes(grammar.maybe(grammar.archive(entries, packs=False), pickled, hostile))


@functools.cache
def zip_bomb(large: str, *others: str) -> bytes:
    """An archive of 2 MB in which the entry `large` unpacks to 1.96 GB, an array of NumPy."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2500000, 28, 28), }"
    start = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(large, "w") as entry:  # in pieces, so that this process stays small
            for piece in (start, *(bytes(784_000) for _ in range(2500))):
                entry.write(piece)
        for name in others:
            archive.writestr(name, start + bytes(1000))
    return buffer.getvalue()


@functools.cache
def packed_zeros(count: int, wbits: int) -> bytes:
    """Zeros, packed in pieces, so that this process stays small. As .gz if `wbits` is 31, for a picture if 15."""
    packer = zlib.compressobj(1, wbits=wbits)
    return b"".join(packer.compress(bytes(min(10**6, left))) for left in range(count, 0, -(10**6))) + packer.flush()


def picture_bomb() -> bytes:
    """Packed rows of 10,000 × 10,000 pixels of 8 bytes."""
    return packed_zeros(10_000 * 80_001, 15)


def gzip_bomb() -> bytes:
    """A file of 5 MB that unpacks to 1 GB."""
    return packed_zeros(10**9, 31)


class Hostile:
    """Creates the file `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.mark}",))


def safetensors(grammar: Grammar, good: bytes) -> bytes:
    """A .safetensors file: the length of the header, the header, the numbers."""
    length = int.from_bytes(good[:8], "little")
    header, numbers = json.loads(good[8 : 8 + length]), good[8 + length :]
    name = grammar.random.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    match grammar.random.randrange(6):
        case 0:
            entry["dtype"] = grammar.random.choice(
                ("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X", 1)
            )
        case 1:
            entry["shape"] = [grammar.number(size) for size in entry["shape"]]
        case 2:
            entry["data_offsets"] = [grammar.number(offset) for offset in entry["data_offsets"]]
        case 3:
            header["__metadata__"] = grammar.changed(header.get("__metadata__", {}))
        case 4:
            header = grammar.changed(header)
        case _:
            header = dict(header, **{str(number): entry for number in range(grammar.random.choice((1, 10_000)))})
    text = json.dumps(header).encode() if grammar.random.random() < 0.95 else grammar.json(header)
    size = grammar.number(len(text)) % 2**64
    return size.to_bytes(8, "little") + text + numbers


def idx(grammar: Grammar, shape: tuple[int, ...]) -> bytes:
    """An IDX file: a magic number, the sizes, then the bytes."""
    magic = bytes([0, 0, grammar.maybe(8, 9, 11, 12, 13, 14, 0), grammar.maybe(len(shape), 0, 1, 2, 4, 255)])
    sizes = b"".join(struct.pack(">I", grammar.number(size) % 2**32) for size in shape)
    return magic + sizes + bytes(max(0, min(grammar.number(int(np.prod(shape))), 10**6)))


def packed(grammar: Grammar, content: bytes) -> bytes:
    """A .gz file: members with headers, deflated data and checksums."""
    if grammar.random.random() < 0.02:
        return gzip_bomb()
    member = gzip.compress(content, 1)
    flags = bytes([member[3] | grammar.maybe(0, 2, 4, 8, 16, 255)])
    member = member[:3] + flags + member[4:]
    trailer = struct.pack("<II", grammar.number(zlib.crc32(content)) % 2**32, grammar.number(len(content)) % 2**32)
    return bytes(grammar.maybe(member[:-8] + trailer, member * 2, member + b"junk", member[:-8], b""))


def npz(grammar: Grammar) -> bytes:
    """An .npz file: an archive of arrays, each with a header that is a literal of Python."""
    if grammar.random.random() < 0.02:
        return zip_bomb("x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy")
    entries = {}
    for part, count in (("train", 20), ("test", 10)):
        for name, shape, kind in ((f"x_{part}", (count, 28, 28), "|u1"), (f"y_{part}", (count,), "<i8")):
            sizes = tuple(grammar.number(size) for size in shape)
            descr = grammar.maybe(
                repr(kind), "'|O'", "'<f8'", "[('a', '<i4')]", "'|V1'", "'<U99999999'", "1", "'<M8[ns]'"
            )
            header = f"{{'descr': {descr}, 'fortran_order': {grammar.maybe('False', 'True', '2')}, 'shape': {sizes}, }}"
            header = str(grammar.maybe(header, "(" * 20_000, "{}", "__import__('os')", header[:-3], "-" * 9000 + "1"))
            version = bytes([grammar.maybe(1, 2, 3, 9), 0])
            length = struct.pack("<H" if version[0] == 1 else "<I", grammar.number(len(header)) % 2**16)
            size = int(np.prod(shape)) * (1 if kind == "|u1" else 8)
            entries[f"{name}.npy"] = b"\x93NUMPY" + version + length + header.encode() + bytes(size)
    return grammar.archive(entries, packs=grammar.random.random() < 0.5)


def csv(grammar: Grammar, columns: int = 785, rows: int = 24) -> bytes:
    """A table with a header line: a label and pixels in each row."""
    cells = [
        [str(grammar.random.randrange(2 if column == 0 else 256)) for column in range(columns)] for _ in range(rows)
    ]
    for _ in range(grammar.random.randrange(3)):
        row = grammar.random.choice(cells)
        wrong = ("256", "-1", "1.5", "nan", "", '"1"', "0x10", "1e3", "1_0", "٣", "\0", "9" * 5000, "#", " 7 ")
        row[grammar.random.randrange(len(row))] = grammar.random.choice(wrong)
        del row[: grammar.maybe(0, 1, 785)]
    end = str(grammar.maybe("\n", "\r\n", "\r", ";", "\n\n"))
    header = str(grammar.maybe("label", "", "label,pixel0" * 9999, "\ufeff"))
    return (end.join([header, *(",".join(row) for row in cells)]) + end).encode("utf-8")


def toml(grammar: Grammar, keys: list[str]) -> bytes:
    """A recipe: settings, known and unknown, with values of all kinds."""
    values = (
        "1",
        "-1",
        "0.5",
        "inf",
        "nan",
        "true",
        '"x"',
        "''",
        "[1, [2]]",
        "{a = 1}",
        "1979-05-27",
        "07:32:00",
        "0x_f",
        '"""a\nb"""',
        '"\\ud800"',
        "[" * 900 + "]" * 900,
        "1" + "0" * 900,
        "9" * 5000,
        '"mnist"',
        '"cnn"',
        "1e400",
    )
    lines = []
    for _ in range(grammar.random.randrange(1, 8)):
        key = str(grammar.maybe(grammar.random.choice(keys), *TEXTS, "a.b", '"quoted"', "about.x", ".".join("a" * 400)))
        lines.append(
            str(grammar.maybe(f"{key} = {grammar.random.choice(values)}", f"[{key}]", f"[[{key}]]", "# comment", "="))
        )
    return "\n".join(lines).encode(errors="replace")


def lines(grammar: Grammar, good: list[dict[str, Any]]) -> bytes:
    """A file of JSON lines."""
    changed = [grammar.json(line) if grammar.random.random() < 0.5 else json.dumps(line).encode() for line in good]
    return bytes(grammar.maybe(b"\n", b"\r\n", b"\n\n", b"")).join(changed[: grammar.maybe(len(changed), 0, 1)])


def png(grammar: Grammar) -> bytes:
    """A PNG file: chunks, each with length, kind and checksum."""
    side = 10_000 if (is_large := grammar.random.random() < 0.03) else 40
    width, height = grammar.number(side) % 2**32, grammar.number(side) % 2**32
    depth, colour = grammar.random.choice((1, 2, 4, 8, 16, 3)), grammar.random.choice((0, 2, 3, 4, 6, 1))
    header = struct.pack(">II5B", width, height, depth, colour, 0, 0, grammar.maybe(0, 1, 2))
    rows = zlib.compress(bytes(grammar.number(40 * (1 + 8 * 40)) % 10**6)) if not is_large else picture_bomb()
    profile = b"name\0\0" + zlib.compress(bytes(grammar.random.choice((10, 10**7))))
    chunks = [(b"IHDR", header), (b"PLTE", bytes(3 * grammar.number(256) % 10**5)), (b"tRNS", bytes(5))]
    chunks += [(b"iCCP", profile), (b"zTXt", profile), (b"eXIf", grammar.random.randbytes(40)), (b"acTL", bytes(8))]
    chunks = [chunks[0], *(chunk for chunk in chunks[1:] if grammar.random.random() < 0.3)]
    chunks += [(b"IDAT", rows), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        for _ in range(grammar.maybe(1, 0, 2)):
            checksum = zlib.crc32(kind + body)
            content += struct.pack(">I", grammar.number(len(body)) % 2**32) + kind + body
            content += struct.pack(">I", grammar.maybe(checksum, checksum ^ 1))
    return content


def picture(grammar: Grammar) -> bytes:
    """A picture of any kind that Pillow writes, with a header that is almost right."""
    kind = grammar.random.choice(("PNG grammar", "PGM", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PNG", "ICO"))
    if kind == "PNG grammar":
        return png(grammar)
    if kind == "PGM":
        head = f"P{grammar.random.randrange(1, 8)}\n{grammar.number(30)} {grammar.number(30)}\n{grammar.number(255)}\n"
        return head.encode() + bytes(grammar.number(900) % 10**6)
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[10:30, 20:24] = 0
    buffer, image = io.BytesIO(), Image.fromarray(pixels)
    image = image.convert(grammar.random.choice(("RGB", "L"))) if kind != "ICO" else image
    image.save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(grammar.random.randrange(4)):  # sizes, offsets and counts are in the first bytes
        where = grammar.random.randrange(min(len(content) - 4, 400))
        content[where : where + 4] = struct.pack(
            grammar.random.choice("<>") + "I", grammar.random.choice(NUMBERS[3:11])
        )
    return bytes(content)

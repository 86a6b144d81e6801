"""Mutate: an input from others, by bytes, by words, by values of JSON, or by a header that lies."""

import json
import re
import struct

from tests.fuzz.readers import Input, unpacked

WORD = re.compile(rb'"(?:\\.|[^"\\])*"|-?\d[\w.+-]*|[A-Za-z_]\w*|[{}\[\],:&*!|>\n]')
PAIR = re.compile(
    rb'"(?:\\.|[^"\\])*"\s*:\s*(?:"(?:\\.|[^"\\])*"|[^\s,{}\[\]"]+|\[[^\[\]]*\])\s*,?'
)
LONGEST = 1 << 14  # bytes of a text that is cut into words
WORDS = [
    *(b"null", b"true", b"false", b"[]", b"{}", b'""', b'" "', b"0", b"-0", b"-1", b"1.5", b"1e0"),
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1e-999", b"0x10", b"1_000", b"+1", b".5"),
    *(b"255", b"256", b"65536", b"2147483647", b"2147483648", b"4294967296"),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551615", b"9" * 400),
    *(b'"\\ud800"', b'"\\udc80"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\u2028\\n\\u0085"'),
    *(b'"../x"', b'"/etc/passwd"', b'"."', b'".."', b'"a/b"', b'"' + b"x" * 300 + b'"'),
    *(b"[[[[]]]]", b'{"a":{"a":{}}}', b"[" * 2000, b"[" * 900 + b"]" * 900, b'{"a":' * 2000),
    *(b"&a", b"*a", b"&a [*a]", b"<<: *a", b"!!python/object/apply:os.system [x]", b"!!binary x"),
    *(b"!!map", b"? a", b"---", b"...", b"%YAML 9.9", b"- - - -", b"|\n", b">-\n", b"\t", b"\r\n"),
    *(b"\x85", "\u2028".encode(), "\ufeff".encode(), b"\xff", b"\xff\xfe", b"\0", b"\x1b[2J"),
    *("é".encode(), "Ġ".encode(), "漢".encode(), b"<|endoftext|>", b'"<|endoftext|>"'),
    *(b"F64", b"F32", b"F16", b"BF16", b"I64", b"BOOL", b"F8_E4M3", b"F4"),
]  # fmt: skip

VALUES = [
    *(None, True, False, [], {}, "", " ", "\n", 0, -1, 1.0, 0.5, 2**31, 2**63, -(2**63), 10**30),
    *(
        1e308,
        float("nan"),
        float("inf"),
        "\ud800",
        "\0",
        "\u2028",
        "../x",
        "/etc/passwd",
        "x" * 500,
    ),
    *(
        "{instruction}",
        "{input}",
        "user",
        "assistant",
        "system",
        "Human: a",
        "<|endoftext|>",
        "F32",
    ),
    *("ByteLevel", "BPE", "Sequence", [None], [[]], [{}], {"": {}}, {"type": "Sequence"}, "a b"),
]


def mutated(content: bytes, other: bytes, rng, largest: int) -> bytes:
    """Change an input a few times; `other` is one that parts may be taken from."""
    for _ in range(rng.choice((1, 1, 1, 1, 2, 4))):
        files, choice = unpacked(content)
        if rng.random() < 0.05:
            choice = rng.randrange(256)
        place = rng.randrange(len(files))
        file = files[place]
        if len(file) > 16 and file[8:9] == b"{" and rng.random() < 0.8:
            files[place] = with_header(file, rng)
        elif rng.random() < 0.3:
            files[place] = in_values(file, rng)
        elif rng.random() < 0.6:
            files[place] = in_words(file, rng)
        elif rng.random() < 0.1:
            files[place] = rng.choice(unpacked(other).files)
        else:
            files[place] = in_bytes(file, other, rng)
        if rng.random() < 0.01:
            del files[rng.randrange(len(files))]
        content = Input(files, choice).packed()
    return content[:largest]


def range_of(length: int, rng, most: int = 1 << 30) -> slice:
    """A part of so many bytes, mostly a short one."""
    start = rng.randrange(length + 1)
    size = rng.choice((1, 1, 2, 4, 8, rng.randrange(length + 1)))
    return slice(start, start + min(size, most))


def in_bytes(file: bytes, other: bytes, rng) -> bytes:
    """Flip a bit, cut, repeat, swap, or insert something."""
    part, new = range_of(len(file), rng), bytearray(file)
    kind = rng.randrange(7)
    if kind == 0 and file:
        new[rng.randrange(len(file))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del new[part]
    elif kind == 2:
        del new[part.start :]
    elif kind == 3:
        new[part.start : part.start] = new[part] * rng.choice((1, 2, 50))
    elif kind == 4:
        there = range_of(len(file), rng)
        new[part], new[there] = new[there], new[part]
    elif kind == 5:
        new[part] = other[range_of(len(other), rng)]
    else:
        new[part.start : part.start] = rng.choice((rng.randbytes(4), rng.choice(WORDS)))
    return bytes(new)


def in_words(file: bytes, rng) -> bytes:
    """Replace, remove, repeat or swap words; or write a field twice."""
    head, tail = file[:LONGEST], file[LONGEST:]
    if rng.random() < 0.15 and (pairs := list(PAIR.finditer(head))):
        pair, place = rng.choice(pairs)[0], rng.choice(pairs).start()
        comma = b"" if pair.endswith(b",") else b","
        return head[:place] + pair + comma + head[place:] + tail
    words = list(WORD.finditer(head))
    if not words:
        return rng.choice(WORDS) + file
    word, another = rng.choice(words), rng.choice(words)
    new = rng.choice((b"", another[0], word[0] * 2, number_near(word[0], rng), *[None] * 4))
    new = rng.choice(WORDS) if new is None else new
    return head[: word.start()] + new + head[word.end() :] + tail


def in_values(file: bytes, rng) -> bytes:
    """Replace, remove, swap or copy values of a JSON file, or of a line of it: it stays JSON."""
    lines = file.split(b"\n")
    line = rng.randrange(len(lines))
    whole = rng.random() < 0.5
    try:
        value = json.loads(file if whole else lines[line])
    except (ValueError, RecursionError):
        return in_words(file, rng)
    holders, waiting = [], [value]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list) and holder:
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            holders += [(holder, key) for key in (*keys[:20], *keys[-20:])]
            waiting += [holder[key] for key in keys]
    if not holders:
        return rng.choice(WORDS)
    (holder, key), (other, another) = rng.choice(holders), rng.choice(holders)
    kind = rng.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and not isinstance(holder[key], dict | list):
        holder[key], other[another] = other[another], holder[key]
    elif kind == 2 and isinstance(holder, dict) and isinstance(key, str):
        holder[rng.choice(("", key + "x", "text", "input", "type", "é" * 300))] = holder.pop(key)
    elif kind == 3 and isinstance(holder[key], int | float):
        holder[key] = rng.choice(
            (holder[key] + 1, -holder[key], float(holder[key]), holder[key] == 1)
        )
    else:
        holder[key] = rng.choice(VALUES)
    try:
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return in_words(file, rng)
    return text if whole else b"\n".join([*lines[:line], text, *lines[line + 1 :]])


def number_near(word: bytes, rng) -> bytes:
    """A number like another: a little more, a little less, larger by far."""
    if not word.isdigit() or len(word) > 30:
        return b"1"
    number = int(word)
    return str(rng.choice((number + 1, number - 1, -number, number * 2, number << 32))).encode()


def with_header(file: bytes, rng) -> bytes:
    """Change the header of a safetensors file, mostly with its length; or the length alone."""
    (length,) = struct.unpack("<Q", file[:8])
    header, numbers = file[8 : 8 + length], file[8 + length :]
    if rng.random() < 0.1:
        lie = rng.choice((0, 1, length - 1, length + 1, length + 8, 1 << 31, 1 << 63, 2**64 - 1))
        return struct.pack("<Q", lie % 2**64) + header + numbers
    if rng.random() < 0.15:
        return file[: 8 + length] + in_bytes(numbers, numbers, rng)
    header = in_words(header, rng) if rng.random() < 0.9 else in_bytes(header, header, rng)
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + numbers

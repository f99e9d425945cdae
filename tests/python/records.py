"""Records as lines of hexadecimal text: key, value, headers (name=value), separated by tabs; `null` is no bytes at all.

Every language's program of the compatibility tests reads and writes this form (see tests/compatibility/main.rs)."""

import time


def parse(line):
    fields = line.rstrip("\n").split("\t")
    headers = [field.split("=", 1) for field in fields[2:]]
    return _bytes(fields[0]), _bytes(fields[1]), [(_bytes(name).decode(), _bytes(value)) for name, value in headers]


def read(path):
    with open(path) as file:
        return [parse(line) for line in file]


def line(key, value, headers):
    fields = [_hex(key), _hex(value)]
    fields += [f"{_hex(name.encode())}={_hex(content)}" for name, content in headers or []]
    return "\t".join(fields) + "\n"


def wanted(arguments):
    """`topic/partition/count` words as {(topic, partition): count}."""
    split = [argument.split("/") for argument in arguments]
    return {(topic, int(partition)): int(count) for topic, partition, count in split}


def store(folder, lines):
    for (topic, partition), text in lines.items():
        with open(f"{folder}/{topic}-{partition}", "w") as file:
            file.write("".join(text))


def settle(condition):
    """Waits a little for what a broker learns a moment later."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def _bytes(field):
    return None if field == "null" else bytes.fromhex(field)


def _hex(content):
    return "null" if content is None else content.hex()

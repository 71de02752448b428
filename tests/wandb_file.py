"""Prints what stands in files that Weights & Biases writes off line, a JSON object a line: runs, and rows of history.

python tests/wandb_file.py FILE.wandb ...
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
"""Bytes in a block of a .wandb file, which is a log as LevelDB's documentation has it, after a header of 7 bytes."""


def records(content: bytes) -> Iterator[bytes]:
    """Goes through the records: checksum (4 bytes), length (2), kind (1: whole, 2 to 4: first, middle, last part)."""
    position, record = 7, b""
    while position + 7 <= len(content):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        record += content[position + 7 : position + 7 + length]
        if content[position + 6] in (1, 4):
            yield record
            record = b""
        position += 7 + length


def main() -> None:
    # Made when the module is imported, and so unknown to type checkers.
    kind_of_record: Any = vars(wandb_internal_pb2)["Record"]
    for file in sys.argv[1:]:
        for content in records(Path(file).read_bytes()):
            record = kind_of_record.FromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                print(json.dumps({"id": record.run.run_id, "project": record.run.project, "config": config}))
            if kind == "history":
                items = record.history.item
                print(
                    json.dumps({".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
                )


if __name__ == "__main__":
    main()

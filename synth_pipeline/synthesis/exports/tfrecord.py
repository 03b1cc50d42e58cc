"""TFRecord, one file: a `tf.train.Example` for each path, or for every 65,536 steps of a longer one.

    path            int64, one              step    int64, one: number of the first step in this record
    time_ns         int64 for each step     NAME    float (32 bits: all that an Example has) for each step
    NAME/units      int64 for each step: the exact price or size in steps of its grid; the least int64 where unknown
    NAME/unit       bytes: that step as decimal text, such as 0.01

A record is its length (uint64, little endian), the masked CRC-32C of these eight bytes, the data, the masked CRC-32C of
the data: https://www.tensorflow.org/tutorials/load_data/tfrecord. The Example is encoded by the rules of
https://protobuf.dev/programming-guides/encoding with the message of tensorflow/core/example/example.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import numpy as np

from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.synthesis.columns import markets
from synth_pipeline.synthesis.dataset import Rows
from synth_pipeline.synthesis.exports import Export, Source

_MASK = 0xA282EAD8
_BYTES, _FLOATS, _INTS = 1, 2, 3
"""Fields of tf.train.Feature; all hold their values in field 1."""
_SHIFTS = np.arange(0, 70, 7, dtype=np.uint64)
_UNKNOWN = np.iinfo(np.int64).min


class TFRecord(Export):
    """Records for TensorFlow."""

    suffix: ClassVar = ".tfrecord"

    def write(self, source: Source, place: Path) -> None:
        """Write the file."""
        steps = {
            f"{market.asset}:{name}" if market.asset else name: market.step_of(name)
            for market in markets(source.dataset)
            for name in market.columns
        }
        with place.open("wb") as file:
            for rows in source.scan():
                file.write(record(_example(rows, source.dataset.names, steps)))


def _example(rows: Rows, names: tuple[str, ...], steps: Mapping[str, float]) -> bytes:
    """Return rows as the bytes of an Example, features in the order of their names."""
    features = {
        "path": ints(np.array([rows.path])),
        "step": ints(np.array([rows.step])),
        "time_ns": ints(rows.label_ns),
    }
    for at, name in enumerate(names):
        column = rows.values[:, at]
        features[name] = floats(column)
        if steps[name]:
            units = np.rint(column / steps[name])
            known = np.isfinite(units)
            features[f"{name}/units"] = ints(np.where(known, np.where(known, units, 0.0).astype(np.int64), _UNKNOWN))
            features[f"{name}/unit"] = texts(f"{Decimal(repr(steps[name])).normalize():f}")
    entries = (_field(1, _field(1, name.encode()) + _field(2, feature)) for name, feature in sorted(features.items()))
    return _field(1, b"".join(entries))


def ints(values: IntArray) -> bytes:
    """Return a Feature of int64."""
    return _field(_INTS, _field(1, varints(values)))


def floats(values: FloatArray) -> bytes:
    """Return a Feature of 32-bit floats."""
    return _field(_FLOATS, _field(1, values.astype("<f4").tobytes()))


def texts(value: str) -> bytes:
    """Return a Feature of one byte string."""
    return _field(_BYTES, _field(1, value.encode()))


def varints(values: IntArray) -> bytes:
    """Return integers as protobuf's varints: seven bits a byte, lowest first, the high bit where more follow."""
    bits = values.astype(np.uint64)[:, np.newaxis] >> _SHIFTS
    more = bits >> np.uint64(7) != 0
    used = np.concatenate((np.ones((len(values), 1), dtype=np.bool_), more[:, :-1]), axis=1)
    septets = (bits & np.uint64(0x7F) | more.astype(np.uint64) << np.uint64(7)).astype(np.uint8)
    return bytes(septets[used].tobytes())


def _field(number: int, content: bytes) -> bytes:
    """Return a field of variable length: its number (below 16) with wire type 2, its length, its content."""
    length, left = bytearray((number << 3 | 2,)), len(content)
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes(length) + bytes((left,)) + content


def record(data: bytes) -> bytes:
    """Return a record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    import google_crc32c

    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)

"""Inputs that are right, small, and made here: by this project's own writers and by the libraries of the formats."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.optional import require

Seeds = list[tuple[str, bytes]]
"""File names and contents."""

_COUNT = 60
_RNG = np.random.default_rng(0)
_PICTURE: Any = cv2.resize(_RNG.integers(0, 255, (5, 6, 3), np.uint8), (40, 30))
_POINTS: NDArray[np.float64] = _RNG.normal(size=(_COUNT, 3))
_X, _Y, _P = _RNG.integers(0, 346, _COUNT), _RNG.integers(0, 260, _COUNT), _RNG.integers(0, 2, _COUNT)
_T = np.sort(_RNG.integers(0, 4000, _COUNT))


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="omnibind-fuzz-") as name:
        yield Path(name)


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _encoded(suffix: str, picture: NDArray[Any], *options: int) -> tuple[str, bytes]:
    return f"opencv{suffix}", cv2.imencode(suffix, picture, options)[1].tobytes()


def pictures() -> Seeds:
    """A picture in every format that can be written here."""
    grey, deep = _PICTURE[:, :, 0], _PICTURE[:, :, 0].astype(np.uint16) * 200
    clear = np.dstack([_PICTURE, grey])
    found = [_encoded(suffix, _PICTURE) for suffix in (".jpg", ".png", ".bmp", ".webp", ".ppm", ".tif")]
    found += [("clear.png", _encoded(".png", clear)[1]), ("deep.png", _encoded(".png", deep)[1])]
    found += [("float.tif", _encoded(".tif", deep.astype(np.float32))[1]), ("deep.tif", _encoded(".tif", deep)[1])]
    found += [("deep.pgm", _encoded(".pgm", deep)[1]), ("grey.jpg", _encoded(".jpg", grey)[1])]
    found.append(("a.jp2", _encoded(".jp2", cv2.resize(_PICTURE, (64, 64)))[1]))
    found.append(("steps.jpg", _encoded(".jpg", _PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)[1]))
    pillow: Any = require("PIL.Image", "Writing pictures")
    picture, other = pillow.fromarray(_PICTURE), pillow.fromarray(_PICTURE[::-1])
    with contextlib.suppress(Exception):
        require("pillow_heif", "Writing pictures").register_heif_opener()
    more = {"save_all": True, "append_images": [other]}
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("one.gif", "GIF", {}),
        ("two.gif", "GIF", more),
        ("two.webp", "WEBP", more),
        ("two.png", "PNG", more),
        ("lossless.webp", "WEBP", {"lossless": True}),
        ("lzw.tif", "TIFF", {"compression": "tiff_lzw"}),
        ("pillow.avif", "AVIF", {}),
        ("pillow.heic", "HEIF", {}),
    ]
    for name, kind, options in kinds:
        file = io.BytesIO()
        with contextlib.suppress(Exception):  # what this Pillow cannot write is no seed
            picture.save(file, kind, **options)
            found.append((name, file.getvalue()))
    file = io.BytesIO()
    picture.convert("P").save(file, "PNG", transparency=0)
    return [*found, ("palette.png", file.getvalue())]


def thermal() -> Seeds:
    """Pictures of temperatures, tables, and a file of FLIR's."""
    celsius = 18 + 0.2 * np.arange(32 * 24, dtype=np.float32).reshape(24, 32)
    table = "\n".join(",".join(f"{value:.2f}" for value in row) for row in celsius).encode()
    names = ("opencv.jpg", "opencv.png", "deep.png", "float.tif", "deep.tif", "deep.pgm", "lzw.tif")
    found = [one for one in pictures() if one[0] in names]
    carried = _flir()
    parts = [carried[at : at + 500] for at in range(0, len(carried), 500)]
    bodies = [b"FLIR\0\1" + bytes([number, len(parts) - 1]) + part for number, part in enumerate(parts)]
    jpeg = cv2.imencode(".jpg", np.full((24, 32, 3), 90, np.uint8))[1].tobytes()
    radiometric = jpeg[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(one) + 2) + one for one in bodies) + jpeg[2:]
    return [*found, ("a.npy", _npy(celsius)), ("a.csv", table), ("a.fff", carried), ("flir.jpg", radiometric)]


def _flir() -> bytes:
    """A file of FLIR's: header, directory, the record of the camera, that of the counts (ExifTool's documentation)."""
    camera = bytearray(0x400)
    struct.pack_into("<H", camera, 0, 2)
    floats = {
        0x20: 0.95, 0x24: 2.0, 0x28: 295.15, 0x2C: 293.15, 0x30: 290.15, 0x34: 0.9, 0x3C: 0.4, 0x58: 21106.77,
        0x5C: 1501.0, 0x60: 1.0, 0x70: 0.006569, 0x74: 0.01262, 0x78: -0.002276, 0x7C: -0.00667, 0x80: 1.9,
        0x30C: 0.012545258,
    }  # fmt: skip
    for offset, number in floats.items():
        struct.pack_into("<f", camera, offset, number)
    struct.pack_into("<i", camera, 0x308, -7340)
    counts = np.linspace(17_000, 19_000, 24 * 32).reshape(24, 32).astype("<u2")
    image = struct.pack("<HHH", 2, 32, 24) + bytes(26) + cv2.imencode(".png", counts)[1].tobytes()
    start = 0x40 + 3 * 32
    entries = [(0x20, 1, len(camera), start), (1, 2, len(image), start + len(camera)), (0, 0, 0, 0)]
    directory = [struct.pack("<HHIIIIIII", kind, form, 100, 1, at, size, 0, 0, 0) for kind, form, size, at in entries]
    header = b"FFF\0" + b"CAMERA".ljust(16, b"\0") + struct.pack("<III", 101, 0x40, 3)
    return header.ljust(0x40, b"\0") + b"".join(directory) + bytes(camera) + image


def touch() -> Seeds:
    """Pictures of pressure and tables."""
    return [one for one in thermal() if not one[0].startswith(("flir", "a.fff"))]


def sound() -> Seeds:
    """A tone in every format that can be written here."""
    soundfile: Any = require("soundfile", "Writing sound")
    tone = (0.3 * np.sin(np.arange(1600) * 0.1)).astype(np.float32)
    found: Seeds = []
    kinds = [
        ("WAV", "PCM_16", ".wav"), ("WAV", "FLOAT", "float.wav"), ("WAV", "IMA_ADPCM", "adpcm.wav"), ("FLAC",
        "PCM_16", ".flac"),
        ("OGG", "VORBIS", ".ogg"), ("OGG", "OPUS", ".opus"), ("MP3", "MPEG_LAYER_III", ".mp3"), ("AIFF", "PCM_16",
        ".aiff"),
        ("CAF", "PCM_24", ".caf"), ("AU", "PCM_16", ".au"), ("W64", "PCM_16", ".w64"), ("VOC", "PCM_16", ".voc"),
        ("RF64", "PCM_16", ".rf64"),
    ]  # fmt: skip
    for kind, coding, name in kinds:
        file = io.BytesIO()
        with contextlib.suppress(Exception):  # what this libsndfile cannot write is no seed
            soundfile.write(file, np.stack([tone, tone], axis=1), 16000, format=kind, subtype=coding)
            found.append((f"a{name}", file.getvalue()))
    with contextlib.suppress(Exception), _folder() as folder:
        av: Any = require("av", "Writing sound")
        for name, codec in (("a.m4a", "aac"), ("a.mkv", "flac"), ("a.avi", "pcm_s16le")):
            with av.open(str(folder / name), "w") as container:
                stream = container.add_stream(codec, rate=16000)
                frame = av.AudioFrame.from_ndarray((tone * 30000).astype(np.int16)[None], "s16", "mono")
                frame.sample_rate = 16000
                for packet in (*stream.encode(frame), *stream.encode(None)):
                    container.mux(packet)
            found.append((name, (folder / name).read_bytes()))
    return found


def clouds() -> Seeds:
    """A cloud in every format that is read."""
    rows = [" ".join(f"{number:.4f}" for number in row) for row in _POINTS]
    lines = "\n".join(rows) + "\n"
    pose = "4\n15\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    flat = np.column_stack([_POINTS, np.ones(_COUNT)]).astype("<f4")
    head = f"# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {_COUNT}\nHEIGHT 1\n"
    head += f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {_COUNT}\nDATA "
    packed = _lzf(np.ascontiguousarray(flat[:, :3].T).tobytes())
    ply = f"ply\nformat {{}} 1.0\nelement vertex {_COUNT}\nproperty float x\nproperty float y\nproperty float z\n"
    found: Seeds = [
        ("a.npy", _npy(_POINTS.astype(np.float32))),
        ("a.npz", _npz(points=_POINTS)),
        ("a.bin", flat.tobytes()),
        ("a.pcd.bin", np.column_stack([flat, flat[:, :1]]).tobytes()),
        ("ascii.pcd", (head + "ascii\n" + lines).encode()),
        ("binary.pcd", (head + "binary\n").encode() + flat[:, :3].tobytes()),
        ("packed.pcd", (head + "binary_compressed\n").encode() + packed),
        ("ascii.ply", (ply.format("ascii") + "end_header\n" + lines).encode()),
        ("binary.ply", (ply.format("binary_little_endian") + "end_header\n").encode() + flat[:, :3].tobytes()),
        ("a.xyz", lines.encode()),
        ("a.txt", ("x y z\n" + lines).encode()),
        ("a.csv", ("x,y,z\n" + lines.replace(" ", ",")).encode()),
        ("a.pts", (f"{_COUNT}\n" + lines).encode()),
        ("a.ptx", (pose + lines).encode()),
    ]
    with contextlib.suppress(Exception), _folder() as folder:
        laspy: Any = require("laspy", "Writing surveys")
        for name in ("a.las", "a.laz"):
            survey = laspy.LasData(laspy.LasHeader(point_format=3, version="1.2"))
            survey.x, survey.y, survey.z = _POINTS.T
            survey.write(folder / name)
            found.append((name, (folder / name).read_bytes()))
    trimesh: Any = require("trimesh", "Writing meshes")
    box = trimesh.creation.box()
    for kind in ("ply", "off", "obj", "stl", "stl_ascii", "glb"):
        made = box.export(file_type=kind)
        found.append((f"mesh.{kind.partition('_')[0]}", made.encode() if isinstance(made, str) else made))
    gltf = box.export(file_type="gltf")
    return [*found, ("mesh.gltf", gltf["model.gltf"])]


def _lzf(data: bytes) -> bytes:
    """The body of a compressed PCD, all of it literals."""
    packed = b"".join(bytes([len(data[at : at + 32]) - 1]) + data[at : at + 32] for at in range(0, len(data), 32))
    return struct.pack("<II", len(packed), len(data)) + packed


def events() -> Seeds:
    """Events in every format that is read and can be written here; those of AEDAT 4 are in the corpus."""
    rows = np.stack([_T, _X, _Y, _P], axis=1)
    words = np.array([0x8001, 0x6005, 0x0007, 0x2803, 0x2000 | 39, 0x3010, 0x4ABC, 0x50FF, 0xA001], "<u2").tobytes()
    evt2 = np.array([0x80000001, *(_P << 28 | _X << 11 | _Y)], "<u4").tobytes()
    dat = np.stack([_T, _P << 28 | _Y << 14 | _X], axis=1).astype("<u4").tobytes()
    davis = np.stack([(259 - _Y) << 22 | (345 - _X) << 12 | _P << 11, _T], axis=1).astype(">u4").tobytes()
    aedat3 = np.stack([_X << 17 | _Y << 2 | _P << 1 | 1, _T], axis=1).astype("<u4").tobytes()
    packet = struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, _COUNT, _COUNT, _COUNT) + aedat3
    atis = np.stack([_X % 240, _Y % 180, _P << 7 | _T >> 16, _T >> 8 & 255, _T & 255], axis=1).astype(np.uint8)
    table = "\n".join(f"{t} {x} {y} {p}" for t, x, y, p in rows.tolist()) + "\n"
    size = {"width": 346, "height": 260}
    found: Seeds = [
        ("a.npz", _npz(x=_X, y=_Y, t=_T, p=_P, **size)),
        ("frame.npz", _npz(frame=_RNG.integers(-3, 4, (12, 16)).astype(np.int16))),
        ("a.npy", _npy(rows)),
        ("a.bin", atis.tobytes()),
        ("evt3.raw", b"% format EVT3;height=480;width=640\n% end\n" + words * 5),
        ("evt2.raw", b"% evt 2.0\n% geometry 640x480\n% end\n" + evt2),
        ("a.dat", b"% Width 640\n% Height 480\n\x0c\x08" + dat),
        ("two.aedat", b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346blue\r\n" + davis),
        ("three.aedat", b"#!AER-DAT3.1\r\n#Source 1: DAVIS346\r\n#!END-HEADER\r\n" + packet),
        ("a.txt", ("346 260\n" + table).encode()),
        ("a.csv", ("t,x,y,p\n" + table.replace(" ", ",")).encode()),
    ]
    with contextlib.suppress(Exception), _folder() as folder:
        h5py: Any = require("h5py", "Writing HDF5")
        for name, options in (("a.h5", {}), ("packed.h5", {"compression": "gzip", "chunks": (30,)})):
            with h5py.File(folder / name, "w") as file:
                for column, values in (("x", _X), ("y", _Y), ("t", _T), ("p", _P)):
                    file.create_dataset(f"events/{column}", data=values, **options)
                file.attrs.update(size)
            found.append((name, (folder / name).read_bytes()))
    return found


def texts() -> Seeds:
    """Configuration, training and recipes."""
    from omnibind_core import resources

    train = resources.path("configs/train/lite.yaml").read_bytes()
    data = resources.path("configs/data/mini.yaml").read_bytes()
    alias = b"a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\nd: 2001-01-01\ne: !!int '3'\n"
    return [
        ("train.yaml", train),
        ("data.yaml", data),
        ("alias.yaml", alias),
        ("a.json", json.dumps({"a": [1]}).encode()),
    ]


def tables() -> Seeds:
    """``samples.csv``, labels of data and of scenes, truth of a recording."""
    samples = "id,modality,source,path,label,split,group\n" + "".join(
        f"{n},image,s,a/{n}.png,label {n % 3},train,\n" for n in range(6)
    )
    concepts = "source,label,canonical\ns,Mull,m\ns,dog,dog\n"
    truth = "start_s,end_s,label\n0,1,dog\n1,2.5,cat\n2,3,\n"
    return [("samples.csv", samples.encode()), ("concepts.csv", concepts.encode()), ("truth.csv", truth.encode())]


def definitions() -> Seeds:
    """Message definitions as bags have them."""
    plain = "uint8 A=1\nstring name\nfloat64[3] place\nuint8[] data\nstring[<=4] names\ntest_msgs/Inner[2] inner\n"
    plain += "=" * 80 + "\nMSG: test_msgs/Inner\nint32 x 5\nbool[] flags\nwstring text\n"
    idl = "module test_msgs { module msg { struct Outer { long x; sequence<octet> data; double y[3]; }; }; };"
    return [("plain.msg", plain.encode()), ("idl.msg", idl.encode())]


def checkpoints() -> Seeds:
    """Weights of PyTorch and safetensors, and an index of several files."""
    import torch
    from safetensors.torch import save

    state = {"a": torch.ones(4, 3), "b.c": torch.zeros(2, dtype=torch.float16)}
    file, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": state}, file)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    index = json.dumps({"metadata": {}, "weight_map": {"a": "a.safetensors"}}).encode()
    return [
        ("a.pth", file.getvalue()),
        ("old.bin", old.getvalue()),
        ("a.safetensors", save(state)),
        ("model.safetensors.index.json", index),
    ]


def model() -> Seeds:
    """The files of a small model, each an input by itself."""
    with _folder() as folder:
        save_model(folder / "model")
        return [(path.name, path.read_bytes()) for path in sorted((folder / "model").iterdir())]


def save_model(folder: Path) -> None:
    """Saves a model that is small and knows nothing."""
    import torch

    from omnibind_core import OmniBind, encoders, fusion

    torch.manual_seed(0)
    config = encoders.load_config("tiny")
    made = OmniBind(config, encoders.build(config, ("text", "image")), fusion.build(config.embed_dim, config.fusion))
    made.set_labels(("cup", "dog"))
    made.save_pretrained(folder)


def bags() -> Seeds:
    """Recordings of two topics in every format."""
    from omnibind_ros import messages
    from omnibind_ros.bags import types, write

    picture = types.message(messages.IMAGE, messages.image_fields(_PICTURE, "bgr8"), 10**18)
    word = types.message(messages.STRING, {"data": "dog"})
    found: Seeds = []
    with _folder() as folder:
        with write.BagWriter(folder / "bag") as bag:
            for n in range(4):
                bag.write("/camera", messages.IMAGE, 10**18 + n * 10**8, picture)
                bag.write("/word", messages.STRING, 10**18 + n * 10**8 + 1, word)
        found += [(f"packed{path.suffix}", path.read_bytes()) for path in sorted((folder / "bag").iterdir())]
        rosbag2: Any = require("rosbags.rosbag2", "Writing a bag")
        for kind, suffix in ((rosbag2.StoragePlugin.MCAP, ".mcap"), (rosbag2.StoragePlugin.SQLITE3, ".db3")):
            with rosbag2.Writer(folder / suffix, version=9, storage_plugin=kind) as writer:
                _fill(writer, types, messages, picture, word)
            found += [(f"plain{suffix}", next((folder / suffix).glob(f"*{suffix}")).read_bytes())]
        rosbag1: Any = require("rosbags.rosbag1", "Writing a bag")
        for compression in (None, rosbag1.Writer.CompressionFormat.BZ2, rosbag1.Writer.CompressionFormat.LZ4):
            writer = rosbag1.Writer(folder / f"{compression}.bag")
            if compression is not None:
                writer.set_compression(compression)
            typesys: Any = require("rosbags.typesys", "Writing a bag")
            store = typesys.get_typestore(typesys.Stores.ROS1_NOETIC)
            with writer:
                connection = writer.add_connection("/word", messages.STRING, typestore=store)
                for n in range(4):
                    data = store.serialize_ros1(store.types[messages.STRING](f"dog {n}"), messages.STRING)
                    writer.write(connection, 10**18 + n * 10**8, data)
            name = "plain" if compression is None else compression.name.lower()
            found.append((f"{name}.bag", (folder / f"{compression}.bag").read_bytes()))
    return found


def _fill(writer: Any, types: Any, messages: Any, picture: Any, word: Any) -> None:
    store = types.typestore()
    for topic, ros_type, item in (("/camera", messages.IMAGE, picture), ("/word", messages.STRING, word)):
        connection = writer.add_connection(topic, ros_type, typestore=store)
        for n in range(3):
            writer.write(connection, 10**18 + n * 10**8, store.serialize_cdr(item, ros_type))

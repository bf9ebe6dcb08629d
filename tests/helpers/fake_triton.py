"""A server on loopback that serves model folders by Triton's HTTP protocol, and validates them strictly."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from piggyback_gan.export.onnx_file import require

_Field = descriptor_pb2.FieldDescriptorProto
_STRING, _INT32, _INT64 = _Field.TYPE_STRING, _Field.TYPE_INT32, _Field.TYPE_INT64
_MESSAGE, _ENUM = _Field.TYPE_MESSAGE, _Field.TYPE_ENUM

_TENSOR = {"name": (1, _STRING, ""), "data_type": (2, _ENUM, "DataType")}
# From protobuf/model_config.proto of triton-inference-server/common: number, type, type's name.
# "*" is before the names of repeated fields.
_MESSAGES: dict[str, dict[str, tuple[int, Any, str]]] = {
    "ModelInput": {**_TENSOR, "*dims": (4, _INT64, "")},
    "ModelOutput": {**_TENSOR, "*dims": (3, _INT64, "")},
    "ModelDynamicBatching": {},
    "ModelParameter": {"string_value": (1, _STRING, "")},
    "ParametersEntry": {"key": (1, _STRING, ""), "value": (2, _MESSAGE, "ModelParameter")},
    "ModelConfig": {
        "name": (1, _STRING, ""),
        "backend": (17, _STRING, ""),
        "max_batch_size": (4, _INT32, ""),
        "*input": (5, _MESSAGE, "ModelInput"),
        "*output": (6, _MESSAGE, "ModelOutput"),
        "dynamic_batching": (11, _MESSAGE, "ModelDynamicBatching"),
        "*parameters": (14, _MESSAGE, "ParametersEntry"),
    },
}


def _config_class() -> Any:
    """Build ModelConfig with the fields that exports use; others are errors."""
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="inference")
    file.syntax = "proto3"
    types = file.enum_type.add(name="DataType")
    types.value.add(name="TYPE_INVALID", number=0)
    types.value.add(name="TYPE_FP32", number=11)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, type_, type_name) in fields.items():
            label = _Field.LABEL_REPEATED if field[0] == "*" else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field.lstrip("*"), number=number)
            added.type, added.label = type_, label
            if type_name:
                added.type_name = f".inference.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


_Config = _config_class()


def read_config(folder: Path) -> Any:
    """Read a model folder's configuration and check its name."""
    config = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), _Config())
    assert config.name == folder.name
    return config


class Refused(Exception):
    """The request does not fit the model."""


class _Model:
    """Version 1 of a model folder, run as by the onnxruntime backend."""

    def __init__(self, folder: Path) -> None:
        self.config = read_config(folder)
        assert self.config.backend == "onnxruntime"
        self._session = require("onnxruntime").InferenceSession(folder / "1" / "model.onnx")
        # As its backend does when it loads a model.
        for of_config, of_file in (
            (self.config.input, self._session.get_inputs()),
            (self.config.output, self._session.get_outputs()),
        ):
            assert [tensor.name for tensor in of_config] == [tensor.name for tensor in of_file]
            for told, found in zip(of_config, of_file, strict=True):
                assert (told.data_type, found.type) == (11, "tensor(float)")
                shape = [axis if isinstance(axis, int) else -1 for axis in found.shape]
                assert shape == [-1, *told.dims]

    def infer(self, head: dict[str, Any], values: bytes) -> tuple[dict[str, Any], bytes]:
        (given,), (told,) = head["inputs"], self.config.input
        if (given["name"], given["datatype"]) != (told.name, "FP32"):
            raise Refused(f"unexpected inference input '{given['name']}'")
        batch, *shape = given["shape"]
        fits = all(known in (-1, side) for known, side in zip(told.dims, shape, strict=True))
        if not fits or not 1 <= batch <= self.config.max_batch_size:
            raise Refused(f"unexpected shape for input '{told.name}': {given['shape']}")
        size = given["parameters"]["binary_data_size"]
        if not size == len(values) == 4 * batch * int(np.prod(shape)):
            raise Refused(f"unexpected size of input '{told.name}': {size}")
        (asked,) = head["outputs"]
        if asked["parameters"] != {"binary_data": True}:
            raise Refused("this server gives binary data alone")
        images = np.frombuffer(values, "<f4").reshape(batch, *shape)
        (made,) = self._session.run([asked["name"]], {told.name: images})
        answer = {
            "name": asked["name"],
            "datatype": "FP32",
            "shape": made.shape,
            "parameters": {"binary_data_size": made.nbytes},
        }
        return {"outputs": [answer]}, made.astype("<f4").tobytes()


class _Handler(BaseHTTPRequestHandler):
    models: dict[str, _Model]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = int(self.headers["Inference-Header-Content-Length"])
        try:
            match self.path.split("/"):
                case ["", "v2", "models", name, "infer"] if name in self.models:
                    head, values = self.models[name].infer(json.loads(body[:length]), body[length:])
                case _:
                    raise Refused(f"Request for unknown model: {self.path}")
        except Refused as error:
            return self._answer(400, json.dumps({"error": str(error)}).encode(), b"")
        return self._answer(200, json.dumps(head).encode(), values)

    def _answer(self, status: int, head: bytes, values: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(head) + len(values)))
        if values:
            self.send_header("Inference-Header-Content-Length", str(len(head)))
        self.end_headers()
        self.wfile.write(head + values)

    def log_message(self, format: str, *values: object) -> None:
        pass


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """Serve the model folders in a folder; yields the server's address."""
    models = {folder.name: _Model(folder) for folder in repository.iterdir() if folder.is_dir()}
    handler = type("Handler", (_Handler,), {"models": models})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

"""A generic gRPC client: knows no service of ours, learns all from the server's reflection."""

import importlib.util
import os
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from . import processes


PROTOS = "/usr/share/grpc-proto"
REFLECTION = "grpc/reflection/v1alpha/reflection.proto"


def _reflection_module():
    """Compiles the public reflection.proto (package grpc-proto) and imports it by its path, since
    its own package would be called grpc too."""
    with tempfile.TemporaryDirectory(prefix="reflection") as folder:
        processes.run(["protoc", "-I" + PROTOS, "--python_out=" + folder, os.path.join(PROTOS, REFLECTION)])
        path = os.path.join(folder, REFLECTION.replace(".proto", "_pb2.py"))
        spec = importlib.util.spec_from_file_location("reflection_pb2", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


class GenericClient:
    def __init__(self, port, key):
        """`port` on loopback, or the path of a unix socket."""
        self.channel = grpc.insecure_channel(f"unix:{port}" if isinstance(port, str) else f"127.0.0.1:{port}")
        self.metadata = [("authorization", f"Bearer {key}")] if key else []
        self.module = _reflection_module()
        self.pool = descriptor_pool.DescriptorPool()

    def _ask(self, **question):
        call = self.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=self.module.ServerReflectionRequest.SerializeToString,
            response_deserializer=self.module.ServerReflectionResponse.FromString)
        request = self.module.ServerReflectionRequest(**question)
        return next(iter(call(iter([request]), metadata=self.metadata, timeout=10)))

    def services(self):
        return sorted(x.name for x in self._ask(list_services="").list_services_response.service)

    def _load(self, symbol):
        answer = self._ask(file_containing_symbol=symbol)
        files = {}
        for data in answer.file_descriptor_response.file_descriptor_proto:
            parsed = descriptor_pb2.FileDescriptorProto.FromString(data)
            files[parsed.name] = parsed
        added = set()

        def add(name):
            if name in added:
                return
            added.add(name)
            if name not in files:
                more = self._ask(file_by_filename=name).file_descriptor_response.file_descriptor_proto
                for data in more:
                    parsed = descriptor_pb2.FileDescriptorProto.FromString(data)
                    files.setdefault(parsed.name, parsed)
            for dependency in files[name].dependency:
                add(dependency)
            self.pool.Add(files[name])
        for name in list(files):
            add(name)

    def methods(self, service):
        """The names of a service's unary methods."""
        self._load(service)
        return [x.name for x in self.pool.FindServiceByName(service).methods
                if not (x.client_streaming or x.server_streaming)]

    def _stub(self, service, method, kind):
        self._load(service)
        descriptor = self.pool.FindServiceByName(service).methods_by_name[method]
        factory = message_factory.MessageFactory(self.pool)
        request_class = factory.GetPrototype(descriptor.input_type)
        answer_class = factory.GetPrototype(descriptor.output_type)
        stub = getattr(self.channel, kind)(f"/{service}/{method}",
                                           request_serializer=request_class.SerializeToString,
                                           response_deserializer=answer_class.FromString)
        return stub, request_class

    def call(self, service, method, request=None):
        """Calls a unary method with a dict; returns a dict."""
        stub, request_class = self._stub(service, method, "unary_unary")
        message = json_format.ParseDict(request or {}, request_class())
        answer = stub(message, metadata=self.metadata, timeout=20)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)

    def stream(self, service, method, request=None, seconds=60):
        """Calls a server-streaming method; yields (dict, the call)."""
        stub, request_class = self._stub(service, method, "unary_stream")
        message = json_format.ParseDict(request or {}, request_class())
        call = stub(message, metadata=self.metadata, timeout=seconds)
        for answer in call:
            yield json_format.MessageToDict(answer, preserving_proto_field_name=True), call

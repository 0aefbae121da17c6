// Calls that answer with a stream, over gRPC.
#pragma once

#include "controller/api/dispatcher.h"
#include "grpcpp/impl/codegen/server_callback.h"
#include "grpcpp/support/byte_buffer.h"

namespace bunker::controller {

// Serves one call of `method`; the library owns the reactor. `core` and `dispatcher` must outlive
// it. Thread-safe.
grpc::ServerWriteReactor<grpc::ByteBuffer>* ServeStream(
    Core& core, Dispatcher& dispatcher, const google::protobuf::MethodDescriptor* method,
    CallInfo info, const grpc::ByteBuffer& request);

}  // namespace bunker::controller

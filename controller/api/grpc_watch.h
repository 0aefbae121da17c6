// WatchImageCache over gRPC: the cache feed as a server stream.
#pragma once

#include "controller/api/dispatcher.h"
#include "grpcpp/impl/codegen/server_callback.h"
#include "grpcpp/support/byte_buffer.h"

namespace bunker::controller {

// Serves one call; the library owns the reactor. `core` and `dispatcher` must outlive it.
// Thread-safe.
grpc::ServerWriteReactor<grpc::ByteBuffer>* ServeCacheWatch(Core& core, Dispatcher& dispatcher,
                                                            CallInfo info,
                                                            const grpc::ByteBuffer& request);

}  // namespace bunker::controller

// A watch: the events that a guest writes, as messages for a stream's reader.
#pragma once

#include <memory>

#include "controller/api/stream_sink.h"

namespace bunker::controller {

// A RawBody, too, as FileTransfer needs it: takes the guest's records and sends `reader` a
// v1::FileEvent for each, at its pace. Where the guest writes no records, the last event is LOST.
std::shared_ptr<StreamSink> MakeFileEventSink(std::shared_ptr<StreamSink> reader);

}  // namespace bunker::controller

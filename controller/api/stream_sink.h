// One reader of a stream of events, whichever transport carries them.
//
// Thread-safe; calls that send don't overlap each other.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

class TerminalSink;

class StreamSink {
 public:
  virtual ~StreamSink() = default;

  // Where the reader also sends; else null.
  virtual TerminalSink* AsTerminal() { return nullptr; }

  // First, once. `closed` may be called on any thread, once, when the reader goes before the end,
  // at once where it has gone already; `drained`, on any thread, whenever CanSend() has become
  // true again. Neither blocks.
  virtual void Listen(std::function<void()> closed, std::function<void()> drained) = 0;
  // The stream begins: no error of its own status can be told any more. Once, before Send().
  virtual void Begin() = 0;
  // Whether it takes another event now; one of up to 16 KiB of data.
  virtual bool CanSend() = 0;
  virtual void Send(const google::protobuf::Message& event) = 0;
  // Nothing new; keeps the reader and what lies between awake.
  virtual void Heartbeat() = 0;
  // The last call. OK: all was told. Before Begin(): the stream was refused.
  virtual void End(const absl::Status& why) = 0;
};

// A client at a terminal.
class TerminalSink : public StreamSink {
 public:
  struct Input {
    std::string data;
    uint32_t columns = 0;  // not 0: the terminal has another size, and there is no data
    uint32_t rows = 0;
  };
  TerminalSink* AsTerminal() override { return this; }
  // Who gets what the client sends, before Begin(). On any thread; it must not block.
  virtual void OnInput(std::function<void(Input)> input) = 0;
  // One more message may come. After Begin().
  virtual void ReadOn() = 0;
};

}  // namespace bunker::controller

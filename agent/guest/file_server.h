// The guest's operations on files: starts a child process for each, and passes packets between it
// and the host. Part of ExecServer's loop. Not thread-safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "agent/guest/file_session.h"
#include "agent/guest/launcher.h"
#include "agent/guest/outbox.h"
#include "agent/guest/poller.h"

namespace bunker::guest {

class FileServer {
 public:
  static constexpr uint64_t kTokenBit = uint64_t{1} << 60;  // of all its tokens in the poller

  // The pointers outlive this.
  FileServer(const Launcher* launcher, Poller* poller, Outbox* outbox)
      : launcher_(launcher), poller_(poller), outbox_(outbox) {}

  void OnFrame(const wire::Frame& frame);
  void OnReady(uint64_t token);
  void OnRoom();
  // Nobody is left who could hear of those of the session before.
  void StartSession() { sessions_.clear(); }
  void OnReaped(pid_t pid) { children_.erase(pid); }
  // Takes down what has finished.
  void Collect();

 private:
  void Start(const wire::Frame& frame);
  FileResult CheckBusy(v1::FileStart::Op op) const;
  void Refuse(uint32_t stream, v1::FileEnd::Kind kind, const std::string& message);

  const Launcher* const launcher_;
  Poller* const poller_;
  Outbox* const outbox_;
  std::map<uint32_t, std::unique_ptr<FileSession>> sessions_;
  std::map<pid_t, v1::FileStart::Op> children_;  // also those that still clean up
};

}  // namespace bunker::guest

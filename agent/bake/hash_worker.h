// A thread that takes the SHA-256 of the chunks it is given, in order.
#pragma once

#include <string>
#include <thread>

#include "agent/bake/chunk.h"

namespace bunker::agent {

class HashWorker {
 public:
  HashWorker();
  ~HashWorker();

  void Push(ChunkPtr chunk) { queue_.Push(std::move(chunk)); }
  // "sha256:<hex>" of everything pushed. Call once.
  std::string Finish();
  // After Finish(): what the thread used.
  double cpu_seconds() const { return cpu_seconds_; }

 private:
  ChunkQueue queue_;
  std::string digest_;
  double cpu_seconds_ = 0;
  std::thread thread_;
};

// CPU seconds of the calling thread.
double ThreadCpuSeconds();

}  // namespace bunker::agent

#include "agent/bake/hash_worker.h"

#include <time.h>

#include "common/base/hex.h"
#include "common/base/sha256.h"

namespace bunker::agent {

double ThreadCpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

HashWorker::HashWorker()
    : thread_([this] {
        Sha256 hash;
        while (ChunkPtr chunk = queue_.Pop()) hash.Update(chunk->view());
        digest_ = "sha256:" + HexEncode(hash.Finish());
        cpu_seconds_ = ThreadCpuSeconds();
      }) {}

HashWorker::~HashWorker() {
  queue_.Abandon();
  if (thread_.joinable()) thread_.join();
}

std::string HashWorker::Finish() {
  queue_.Close();
  if (thread_.joinable()) thread_.join();
  return digest_;
}

}  // namespace bunker::agent

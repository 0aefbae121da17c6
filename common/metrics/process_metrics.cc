// The process itself, as /proc shows it.
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>

#include "absl/time/clock.h"
#include "common/metrics/metrics.h"

namespace bunker::metrics {
namespace {

double ResidentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  long pages = 0;
  const bool read = std::fscanf(file, "%*s %ld", &pages) == 1;
  std::fclose(file);
  return read ? static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE)) : 0;
}

double OpenDescriptors() {
  DIR* folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  int count = -3;  // ".", "..", and the folder's own
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count;
}

double CpuSeconds() {
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

void Registry::AddProcess() {
  AddGauge("process_resident_memory_bytes", "Resident memory.", ResidentBytes);
  AddGauge("process_open_fds", "Open file descriptors.", OpenDescriptors);
  AddCounter("process_cpu_seconds_total", "CPU time of user and system.", CpuSeconds);
  AddGauge("process_start_time_seconds", "When the process began, in seconds since 1970.",
           [started = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch())] { return started; });
  AddGauge("process_max_fds", "The limit on file descriptors.", [] {
    rlimit limit{};
    return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<double>(limit.rlim_cur) : 0;
  });
}

}  // namespace bunker::metrics

// scripted_agents: many workers in one process, of which only the links are real. Driven by lines
// on standard input (see scripted_fleet.h), each answered by one line of JSON; ends with its input.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <string>

#include "absl/synchronization/mutex.h"
#include "common/base/log.h"
#include "tests/fleet/scripted_fleet.h"

namespace bunker::test {
namespace {

struct Flags {
  FleetOptions fleet;
  std::string admin_socket;
  std::string identities;
  double image_ms = 0;
  double boot_ms = 0;
  double stop_ms = 0;
  bool verbose = false;
};

void AddOptions(CLI::App& app, Flags& flags) {
  FleetOptions& fleet = flags.fleet;
  app.add_option("--controller", fleet.endpoint.address, "host:port of the link")->required();
  app.add_option("--ca-file", fleet.endpoint.ca_file, "dial with TLS, trusting these CAs");
  app.add_option("--agents", fleet.agents, "how many");
  app.add_option("--identities", flags.identities, "file of the credentials, kept between runs")
      ->required();
  app.add_option("--admin-socket", flags.admin_socket, "join those that have no credential yet");
  app.add_option("--prefix", fleet.prefix, "names are this and a number");
  app.add_option("--cpu-millicores", fleet.cpu_millicores, "of each");
  app.add_option("--memory-mb", fleet.memory_mb, "of each");
  app.add_option("--disk-mb", fleet.disk_mb, "of each");
  app.add_option("--arch", fleet.arch, "X86_64 or AARCH64");
  app.add_option("--zones", fleet.zones, "label zone=z0… in turn");
  app.add_option("--seed", fleet.seed, "of delays and failures");
  app.add_option("--image-ms", flags.image_ms, "from an image's assignment to ready");
  app.add_option("--boot-ms", flags.boot_ms, "from ready to running");
  app.add_option("--stop-ms", flags.stop_ms, "from the stop to stopped");
  app.add_option("--spread", fleet.script.spread, "delays vary by this share");
  app.add_option("--image-failures", fleet.script.image_failures, "share that fails, retryably");
  app.add_option("--boot-failures", fleet.script.boot_failures, "share that fails");
  app.add_flag("--verbose", flags.verbose, "log each link's life");
}

// A connection of its own each.
void RaiseFileLimit(size_t agents) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // what counts is told below
  if (limit.rlim_cur < agents + 200)
    std::fprintf(stderr, "scripted_agents: %zu agents need more open files than %zu\n", agents,
                 static_cast<size_t>(limit.rlim_cur));
}

void Answer(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

int Serve(Flags& flags, std::vector<agent::Identity> identities) {
  auto loop = EventLoop::Create();
  if (!loop.ok()) return 1;
  ScriptedFleet fleet(**loop, flags.fleet, std::move(identities));
  ::fcntl(STDIN_FILENO, F_SETFL, ::fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
  std::string pending;
  const absl::Status watched = (*loop)->WatchFd(STDIN_FILENO, EventLoop::kReadable, [&](uint32_t) {
    char buffer[4096];
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) return (*loop)->Stop();
    pending.append(buffer, static_cast<size_t>(count));
    for (size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      Answer(fleet.Obey(pending.substr(0, end)));
      pending.erase(0, end + 1);
    }
  });
  if (!watched.ok()) return 1;
  Answer(R"({"ready":true})");
  (*loop)->Run();
  // gRPC's own threads may be in the midst of what nobody will hear any more.
  std::fflush(nullptr);
  ::_exit(0);
}

int Main(int argc, char** argv) {
  CLI::App app("Scripted agents: workers of which only the link is real.");
  Flags flags;
  AddOptions(app, flags);
  CLI11_PARSE(app, argc, argv);
  ::signal(SIGPIPE, SIG_IGN);
  if (!flags.verbose) SetLogThreshold(Severity::kError);
  flags.fleet.endpoint.tls = !flags.fleet.endpoint.ca_file.empty();
  flags.fleet.script.image_delay = absl::Milliseconds(flags.image_ms);
  flags.fleet.script.boot_delay = absl::Milliseconds(flags.boot_ms);
  flags.fleet.script.stop_delay = absl::Milliseconds(flags.stop_ms);
  RaiseFileLimit(flags.fleet.agents);
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  auto identities = LoadIdentities(flags.identities);
  absl::Status status = identities.status();
  if (status.ok() && identities->size() < flags.fleet.agents && !flags.admin_socket.empty()) {
    status = JoinAll(flags.fleet, flags.admin_socket, *identities);
    if (status.ok()) status = SaveIdentities(flags.identities, *identities);
  }
  if (status.ok() && identities->size() < flags.fleet.agents)
    status = absl::NotFoundError("not enough identities, and no --admin-socket to join with");
  if (!status.ok()) {
    std::fprintf(stderr, "scripted_agents: %s\n", status.ToString().c_str());
    return 1;
  }
  return Serve(flags, *std::move(identities));
}

}  // namespace
}  // namespace bunker::test

int main(int argc, char** argv) {
  return bunker::test::Main(argc, argv);
}

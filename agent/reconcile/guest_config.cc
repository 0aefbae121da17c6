#include "agent/reconcile/guest_config.h"

#include <string>

#include "absl/time/clock.h"
#include "agent/reconcile/network_request.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"

namespace bunker::agent {
namespace {

using MainProgram = guest::v1::MainProgram;
constexpr size_t kEntropyBytes = 64;

// systemd's form of it. The same over a bunker's restarts, and no other's; not to be guessed from.
std::string MachineIdOf(const std::string& bunker_id) {
  return Sha256Hex("machine-id " + bunker_id).substr(0, 32);
}

void SetDefaults(const link::v1::BunkerAssignment& wanted, guest::v1::GuestConfig& config) {
  for (const auto& [name, value] : wanted.env()) (*config.mutable_default_env())[name] = value;
  config.set_default_cwd(wanted.working_dir());
  config.set_default_user(wanted.user());
}

MainProgram::Restart RestartOf(link::v1::MainProgram::Restart restart) {
  switch (restart) {
    case link::v1::MainProgram::ON_FAILURE: return MainProgram::ON_FAILURE;
    case link::v1::MainProgram::ALWAYS: return MainProgram::ALWAYS;
    default: return MainProgram::NEVER;
  }
}

}  // namespace

guest::v1::GuestConfig ConfigFor(const link::v1::BunkerAssignment& wanted) {
  guest::v1::GuestConfig config;
  config.set_hostname(wanted.hostname());
  config.set_machine_id(MachineIdOf(wanted.bunker_id()));
  SetDefaults(wanted, config);
  config.set_realtime_ns(static_cast<uint64_t>(absl::ToUnixNanos(absl::Now())));
  SystemRng rng;
  config.set_entropy(rng.Bytes(kEntropyBytes));
  PutGuestNetwork(wanted, &config);
  return config;
}

guest::v1::GuestConfig MainConfigFor(const link::v1::BunkerAssignment& wanted) {
  guest::v1::GuestConfig config;
  SetDefaults(wanted, config);
  const link::v1::MainProgram& from = wanted.main();
  MainProgram& main = *config.mutable_main();
  *main.mutable_argv() = from.argv();
  for (const auto& [name, value] : from.env()) (*main.mutable_env())[name] = value;
  main.set_restart(RestartOf(from.restart()));
  main.set_allow_root(from.allow_root());
  main.set_default_to_1000(from.default_to_1000());
  return config;
}

}  // namespace bunker::agent

// fleet_store: looks into, and fills, the store of a controller that does not run.
//
//   fleet_store check FILE     loads it as the controller does and checks every invariant
//   fleet_store seed FILE      adds workers, their bunkers and ended bunkers (see fleet_rows.h),
//   and
//                              writes the workers' credentials for scripted_agents --identities
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "controller/engine/engine.h"
#include "controller/store/sqlite_store.h"
#include "tests/fleet/fleet_rows.h"

namespace bunker::controller {
namespace {

absl::StatusOr<std::unique_ptr<SqliteStore>> OpenStore(const std::string& path) {
  SqliteStore::Options options;
  options.must_exist = true;
  return SqliteStore::Open(path, options);
}

size_t PeakRssKib() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss);
}

absl::Status Check(const std::string& path) {
  ASSIGN_OR_RETURN(const auto store, OpenStore(path));
  SeededRng rng(1);
  Engine engine(EngineOptions(), rng);
  const size_t rss_before_kib = PeakRssKib();
  const absl::Time began = absl::Now();
  RETURN_IF_ERROR(engine.Load(*store, absl::Now()));
  const absl::Duration took = absl::Now() - began;
  const size_t rss_after_kib = PeakRssKib();
  RETURN_IF_ERROR(engine.CheckInvariants());
  std::printf("{\"ok\":true,\"load_ms\":%.0f,\"memory_kib\":%zu}\n",
              absl::ToDoubleMilliseconds(took), rss_after_kib - rss_before_kib);
  return absl::OkStatus();
}

absl::Status Seed(const std::string& path, const FleetRows& rows, const std::string& identities) {
  ASSIGN_OR_RETURN(const auto store, OpenStore(path));
  ASSIGN_OR_RETURN(const BootstrapResult owner, FirstOwner(*store));
  ASSIGN_OR_RETURN(const FleetAccess access, SeedFleet(*store, owner, rows, absl::Now()));
  std::string text;
  for (size_t i = 0; i < access.credentials.size(); ++i) {
    text +=
        access.worker_names[i] + " " + access.worker_ids[i] + " " + access.credentials[i] + "\n";
  }
  if (!identities.empty()) RETURN_IF_ERROR(WriteFileDurably(identities, text, 0600));
  std::printf("{\"ok\":true,\"image\":\"%s\"}\n", access.image_name.c_str());
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("The store of a controller that does not run.");
  app.require_subcommand(1);
  std::string path;
  std::string identities;
  FleetRows rows;
  CLI::App* check = app.add_subcommand("check", "load it and check every invariant");
  check->add_option("file", path)->required();
  CLI::App* seed = app.add_subcommand("seed", "add a fleet's rows");
  seed->add_option("file", path)->required();
  seed->add_option("--workers", rows.workers);
  seed->add_option("--bunkers", rows.bunkers);
  seed->add_option("--finished", rows.finished);
  seed->add_option("--identities", identities, "where the workers' credentials go");
  CLI11_PARSE(app, argc, argv);
  SetLogThreshold(Severity::kWarning);
  const absl::Status status = check->parsed() ? Check(path) : Seed(path, rows, identities);
  if (status.ok()) return 0;
  std::fprintf(stderr, "fleet_store: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace bunker::controller

int main(int argc, char** argv) {
  return bunker::controller::Main(argc, argv);
}

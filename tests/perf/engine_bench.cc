// engine_bench: what the engine and the store cost by themselves, without the network.
//
//   engine_bench placement --workers N --bunkers N   decisions, empty fleet and full one in turn;
//                                                    then durable creates on the full one
//   engine_bench commits --bunkers N                 status updates: one commit each, and grouped
//
// Each prints one line of JSON.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/rng.h"
#include "controller/engine/bootstrap.h"
#include "controller/engine/core.h"
#include "controller/engine/engine.h"
#include "controller/store/mem_store.h"
#include "controller/store/row_codec.h"
#include "controller/store/sqlite_store.h"
#include "nlohmann/json.hpp"
#include "tests/fleet/fleet_rows.h"
#include "tests/support/loop_thread.h"
#include "tests/support/temp_dir.h"

namespace bunker::controller {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

double CpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "engine_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

// An engine with a seeded fleet, in memory.
struct Fleet {
  Fleet(Store& store, const FleetRows& rows) : rng(11) {
    BootstrapSpec spec;
    spec.key_sha256 = std::string(64, '1');
    const auto made = Bootstrap(store, spec, absl::Now(), rng);
    Must(made.status());
    auto seeded = SeedFleet(store, *made, rows, absl::Now());
    Must(seeded.status());
    access = *std::move(seeded);
    caller.user_id = made->user_id;
    caller.tenant_id = made->tenant_id;
    caller.partner_id = made->partner_id;
    caller.role = Role::kTenantAdmin;
    caller.sees_all_bunkers = true;
  }
  void Load(Store& store) {
    EngineOptions options;
    engine = std::make_unique<Engine>(options, rng);
    const Clock::time_point began = Clock::now();
    Must(engine->Load(store, absl::Now()));
    load_ms = SecondsSince(began) * 1000;
  }
  absl::Status Create(Engine& e, Turn& turn) {
    CreateBunkerSpec spec;
    spec.image = "seeded";
    return e.CreateBunker(turn, caller, spec, nullptr).status();
  }

  SeededRng rng;
  FleetAccess access;
  Caller caller;
  std::unique_ptr<Engine> engine;
  double load_ms = 0;
};

// Seconds that one decision takes: a create in memory, taken back.
double DecisionSeconds(Fleet& fleet, int count) {
  Turn turn(absl::Now());
  const Clock::time_point began = Clock::now();
  for (int i = 0; i < count; ++i) {
    Must(fleet.Create(*fleet.engine, turn));
    turn.RollbackTo(0);
  }
  return SecondsSince(began) / count;
}

// Durable creates a second, with so many under way at once.
double DurableCreates(Fleet& fleet, Store& store, double seconds, size_t at_once,
                      double* cpu_share) {
  test::LoopThread thread;
  std::unique_ptr<Core> core;
  thread.Run(
      [&] { core = std::make_unique<Core>(thread.loop(), store, *fleet.engine, Core::Options()); });
  std::atomic<size_t> done{0};
  std::atomic<size_t> open{0};
  std::atomic<bool> stop{false};
  std::function<void()> next = [&] {
    core->Post([&](Engine& engine, Turn& turn) {
      Must(fleet.Create(engine, turn));
      turn.AfterCommit([&](const absl::Status& status) {
        Must(status);
        done.fetch_add(1);
        if (stop.load()) {
          open.fetch_sub(1);
        } else {
          next();
        }
      });
    });
  };
  const Clock::time_point began = Clock::now();
  const double cpu_began = CpuSeconds();
  open = at_once;
  for (size_t i = 0; i < at_once; ++i) next();
  while (SecondsSince(began) < seconds) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const double rate = static_cast<double>(done.load()) / SecondsSince(began);
  *cpu_share = (CpuSeconds() - cpu_began) / SecondsSince(began);
  stop = true;
  while (open.load() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  thread.Run([&] { core.reset(); });
  return rate;
}

nlohmann::json Placement(size_t workers, size_t bunkers, int rounds, double seconds) {
  MemStore empty_store;
  FleetRows rows;
  rows.workers = workers;
  Fleet empty(empty_store, rows);
  empty.Load(empty_store);
  const test::TempDir folder;
  auto opened = SqliteStore::Open(folder.File("state.db"), SqliteStore::Options());
  Must(opened.status());
  rows.bunkers = bunkers;
  rows.bunkers_run = true;
  Fleet full(**opened, rows);
  // Load() comes before the first commit, so a second opening.
  opened->reset();
  opened = SqliteStore::Open(folder.File("state.db"), SqliteStore::Options());
  Must(opened.status());
  full.Load(**opened);

  std::vector<double> at_none, at_full;
  DecisionSeconds(empty, 100);
  DecisionSeconds(full, 100);
  for (int round = 0; round < rounds; ++round) {
    at_none.push_back(DecisionSeconds(empty, 200));
    at_full.push_back(DecisionSeconds(full, 200));
  }
  double cpu = 0;
  const double durable = DurableCreates(full, **opened, seconds, 256, &cpu);
  const double none = Median(at_none), all = Median(at_full);
  return {{"workers", workers},
          {"bunkers", bunkers},
          {"decisions_per_s_at_none", 1 / none},
          {"decisions_per_s", 1 / all},
          {"cost_ratio", all / none},
          {"durable_per_s", durable},
          {"durable_cpu_cores", cpu},
          {"load_ms", full.load_ms}};
}

Bunker FirstBunker(Store& store) {
  Bunker row;
  Must(store.Load(Noun::kBunker, [&](std::string_view, std::string_view body) {
    return row.id.empty() ? DecodeRow(body, &row) : absl::OkStatus();
  }));
  return row;
}

// Updates of random bunkers' rows, `at_once` to a commit.
double CommitRate(Store& store, const Bunker& row, const std::vector<std::string>& ids,
                  size_t at_once, double seconds) {
  SeededRng rng(3);
  const Clock::time_point began = Clock::now();
  size_t done = 0;
  while (SecondsSince(began) < seconds) {
    Batch batch;
    for (size_t i = 0; i < at_once; ++i) {
      Bunker changed = row;
      changed.id = ids[rng.Below(ids.size())];
      changed.last_activity_at = absl::Now();
      const std::string id = changed.id;
      batch.push_back({Noun::kBunker, id, [changed] { return EncodeRow(changed); }});
    }
    Must(CommitAndWait(store, std::move(batch)));
    done += at_once;
  }
  return static_cast<double>(done) / SecondsSince(began);
}

nlohmann::json Commits(size_t bunkers, double seconds) {
  const test::TempDir folder;
  auto store = SqliteStore::Open(folder.File("state.db"), SqliteStore::Options());
  Must(store.status());
  FleetRows rows;
  rows.workers = 100;
  rows.bunkers = bunkers;
  rows.bunkers_run = true;
  Fleet fleet(**store, rows);
  store->reset();
  store = SqliteStore::Open(folder.File("state.db"), SqliteStore::Options());
  Must(store.status());
  const Bunker row = FirstBunker(**store);
  const std::string body = EncodeRow(row);
  constexpr int kTurns = 20'000;
  Clock::time_point began = Clock::now();
  size_t bytes = 0;
  for (int i = 0; i < kTurns; ++i) bytes += EncodeRow(row).size();
  const double encode_us = SecondsSince(began) / kTurns * 1e6;
  began = Clock::now();
  Bunker decoded;
  for (int i = 0; i < kTurns; ++i) Must(DecodeRow(body, &decoded));
  const double decode_us = SecondsSince(began) / kTurns * 1e6;
  std::vector<double> alone, grouped;
  for (int round = 0; round < 3; ++round) {
    alone.push_back(CommitRate(**store, row, fleet.access.bunker_ids, 1, seconds));
    grouped.push_back(CommitRate(**store, row, fleet.access.bunker_ids, 500, seconds));
  }
  return {{"one_commit_each_per_s", Median(alone)},
          {"grouped_by_500_per_s", Median(grouped)},
          {"encode_us", encode_us},
          {"decode_us", decode_us},
          {"body_bytes", bytes / kTurns}};
}

int Main(int argc, char** argv) {
  CLI::App app("What the engine and the store cost by themselves.");
  app.require_subcommand(1);
  size_t workers = 5000;
  size_t bunkers = 45'000;
  int rounds = 9;
  double seconds = 4;
  CLI::App* placement = app.add_subcommand("placement");
  CLI::App* commits = app.add_subcommand("commits");
  for (CLI::App* command : {placement, commits}) {
    command->add_option("--bunkers", bunkers);
    command->add_option("--seconds", seconds);
  }
  placement->add_option("--workers", workers);
  placement->add_option("--rounds", rounds);
  CLI11_PARSE(app, argc, argv);
  SetLogThreshold(Severity::kWarning);
  const nlohmann::json report = placement->parsed() ? Placement(workers, bunkers, rounds, seconds)
                                                    : Commits(bunkers, seconds);
  std::printf("%s\n", report.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace bunker::controller

int main(int argc, char** argv) {
  return bunker::controller::Main(argc, argv);
}

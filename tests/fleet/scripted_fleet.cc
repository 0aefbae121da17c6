#include "tests/fleet/scripted_fleet.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/str_split.h"
#include "bunker/link/v1/agent_link.grpc.pb.h"
#include "bunker/v1/admin.grpc.pb.h"
#include "common/base/files.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace bunker::test {
namespace {

constexpr size_t kJoinThreads = 16;
constexpr size_t kMaxIdentityBytes = 64 << 20;

std::string NameOf(const FleetOptions& options, size_t index) {
  return options.prefix + std::to_string(index);
}

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
}

absl::StatusOr<agent::Identity> JoinOne(v1::Admin::Stub& admin, link::v1::AgentLink::Stub& link,
                                        const std::string& name) {
  v1::CreateJoinTokenRequest ask;
  ask.set_worker_name(name);
  v1::CreateJoinTokenResponse token;
  grpc::ClientContext ask_context;
  SetDeadline(ask_context);
  RETURN_IF_ERROR(agent::FromGrpc(admin.CreateJoinToken(&ask_context, ask, &token)));
  link::v1::JoinRequest join;
  join.set_token(token.token());
  join.set_worker_name(name);
  link::v1::JoinResponse joined;
  grpc::ClientContext join_context;
  SetDeadline(join_context);
  RETURN_IF_ERROR(agent::FromGrpc(link.Join(&join_context, join, &joined)));
  return agent::Identity{joined.worker_id(), name, joined.credential(), ""};
}

}  // namespace

absl::StatusOr<std::vector<agent::Identity>> LoadIdentities(const std::string& path) {
  std::vector<agent::Identity> identities;
  const auto text = ReadFile(path, kMaxIdentityBytes);
  if (absl::IsNotFound(text.status())) return identities;
  RETURN_IF_ERROR(text.status());
  std::istringstream lines(*text);
  agent::Identity identity;
  while (lines >> identity.name >> identity.worker_id >> identity.credential)
    identities.push_back(identity);
  return identities;
}

absl::Status SaveIdentities(const std::string& path,
                            const std::vector<agent::Identity>& identities) {
  std::string text;
  for (const agent::Identity& identity : identities)
    text += identity.name + " " + identity.worker_id + " " + identity.credential + "\n";
  return WriteFileDurably(path, text, 0600);
}

absl::Status JoinAll(const FleetOptions& options, const std::string& admin_socket,
                     std::vector<agent::Identity>& identities) {
  ASSIGN_OR_RETURN(const auto channel, agent::OpenChannel(options.endpoint));
  const auto link = link::v1::AgentLink::NewStub(channel);
  const auto admin = v1::Admin::NewStub(
      grpc::CreateChannel("unix:" + admin_socket, grpc::InsecureChannelCredentials()));
  const size_t first = identities.size();
  identities.resize(std::max(first, options.agents));
  std::atomic<size_t> next{first};
  Mutex mutex;
  absl::Status failed;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < std::min(kJoinThreads, identities.size() - first); ++i) {
    threads.emplace_back([&] {
      for (size_t index = next.fetch_add(1); index < identities.size(); index = next.fetch_add(1)) {
        auto identity = JoinOne(*admin, *link, NameOf(options, index));
        if (identity.ok()) {
          identities[index] = *std::move(identity);
          continue;
        }
        MutexLock lock(mutex);
        failed.Update(identity.status());
        return;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return failed;
}

ScriptedFleet::ScriptedFleet(Loop& loop, FleetOptions options,
                             std::vector<agent::Identity> identities)
    : loop_(loop), options_(std::move(options)) {
  for (size_t i = 0; i < options_.agents; ++i) {
    agent::LinkClient::Options client;
    client.endpoint = options_.endpoint;
    client.identity = identities[i];
    client.boot_id = "scripted-host-" + identities[i].name;
    client.agent_version = "scripted";
    client.facts.set_cpu_millicores(options_.cpu_millicores);
    client.facts.set_memory_mb(options_.memory_mb);
    client.facts.set_disk_mb(options_.disk_mb);
    client.facts.set_arch(options_.arch);
    client.facts.set_isolation("kvm");
    if (options_.zones > 0)
      (*client.facts.mutable_labels())["zone"] = "z" + std::to_string(i % options_.zones);
    // Versions are never reused, over runs of this process neither.
    client.boot_counter = static_cast<uint64_t>(absl::ToUnixSeconds(absl::Now())) & 0x7fffff;
    agents_.push_back(std::make_unique<ScriptedAgent>(loop_, std::move(client), options_.script,
                                                      counters_, options_.seed * 1'000'003 + i));
  }
}

std::string ScriptedFleet::Obey(const std::string& line) {
  const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
  const auto refuse = [&] {
    return nlohmann::json({{"error", "unknown command"}, {"line", line}}).dump();
  };
  if (words.empty()) return refuse();
  const std::string& verb = words[0];
  if (verb == "stats") return Stats();
  if (verb == "dump") return Dump();
  if (verb == "set" && words.size() == 3) {
    if (!Set(words[1], std::strtod(words[2].c_str(), nullptr))) return refuse();
    return R"({"ok":true})";
  }
  size_t count = agents_.size();
  if (words.size() > 1 && verb != "flood")
    count = std::min<size_t>(count, std::strtoul(words[1].c_str(), nullptr, 10));
  for (size_t i = 0; i < count; ++i) {
    if (verb == "dial") {
      agents_[i]->Dial();
    } else if (verb == "drop") {
      agents_[i]->Drop();
    } else if (verb == "reboot") {
      agents_[i]->Reboot();
    } else if (verb == "flood" && words.size() == 2) {
      agents_[i]->Flood(words[1] == "on");
    } else {
      return refuse();
    }
  }
  return R"({"ok":true})";
}

bool ScriptedFleet::Set(const std::string& key, double value) {
  AgentScript& script = options_.script;
  if (key == "image_ms") {
    script.image_delay = absl::Milliseconds(value);
  } else if (key == "boot_ms") {
    script.boot_delay = absl::Milliseconds(value);
  } else if (key == "stop_ms") {
    script.stop_delay = absl::Milliseconds(value);
  } else if (key == "spread") {
    script.spread = value;
  } else if (key == "image_failures") {
    script.image_failures = value;
  } else if (key == "boot_failures") {
    script.boot_failures = value;
  } else {
    return false;
  }
  return true;
}

std::string ScriptedFleet::Stats() const {
  size_t connected = 0;
  for (const auto& agent : agents_) connected += agent->connected() ? 1 : 0;
  return nlohmann::json({{"agents", agents_.size()},
                         {"connected", connected},
                         {"images_ready", counters_.images_ready},
                         {"bunkers_held", counters_.bunkers_held},
                         {"bunkers_running", counters_.bunkers_running},
                         {"booted", counters_.booted},
                         {"rows_acked", counters_.rows_acked},
                         {"revoked", counters_.revoked}})
      .dump();
}

std::string ScriptedFleet::Dump() const {
  nlohmann::json all = nlohmann::json::object();
  for (const auto& agent : agents_) all[agent->identity().worker_id] = agent->Dump();
  return all.dump();
}

}  // namespace bunker::test

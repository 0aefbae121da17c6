#include "tests/fleet/scripted_agent.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "agent/link/tunnel.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"

namespace bunker::test {
namespace {

using link::v1::BunkerObservation;
using link::v1::ImageObservation;

// What a ref resolves to: the same on every agent and in every run.
std::string DigestOf(const link::v1::ImageAssignment& image) {
  const std::string& source =
      image.source().has_tar_path() ? image.source().tar_path() : image.source().oci_ref();
  return "sha256:" + Sha256Hex(source);
}

bool IsRunning(const link::v1::Observation& told) {
  return told.has_bunker() && told.bunker().status() == BunkerObservation::RUNNING;
}
bool IsReady(const link::v1::Observation& told) {
  return told.has_image() && told.image().status() == ImageObservation::READY;
}

}  // namespace

ScriptedAgent::ScriptedAgent(Loop& loop, agent::LinkClient::Options options,
                             const AgentScript& script, AgentCounters& counters, uint64_t seed)
    : loop_(loop), script_(script), counters_(counters), options_(std::move(options)), rng_(seed) {
  // Each report of a state counts here, however fast they come.
  options_.progress_pause = absl::ZeroDuration();
}

ScriptedAgent::~ScriptedAgent() {
  for (auto& [name, held] : held_) loop_.CancelTimer(held.timer);
}

void ScriptedAgent::Dial() {
  if (client_ != nullptr) return;
  ++options_.boot_counter;
  options_.held.clear();
  for (const auto& [name, held] : held_) options_.held[name] = held.version;
  client_ = std::make_unique<agent::LinkClient>(loop_, options_, *this);
  for (const auto& [name, held] : held_) {
    if (!held.told.name().empty()) client_->UpsertObservation(held.told);
  }
  client_->Start();
}

void ScriptedAgent::Drop() {
  client_.reset();
}

void ScriptedAgent::Reboot() {
  Drop();
  options_.boot_id += "-" + std::to_string(++reboots_);
  for (auto it = held_.begin(); it != held_.end();) {
    if (!it->second.row.has_bunker()) {
      ++it;
      continue;
    }
    loop_.CancelTimer(it->second.timer);
    Count(it->second, -1);
    it = held_.erase(it);
  }
  Dial();
}

absl::Status ScriptedAgent::AdmitAssignment(const link::v1::Assignment&) {
  return absl::OkStatus();
}

void ScriptedAgent::OnAssignments(agent::AssignmentChanges changes, std::function<void()> durable) {
  for (const link::v1::Assignment& row : changes.rows) Take(row);
  for (const std::string& name : changes.removed) Remove(name);
  durable();
}

void ScriptedAgent::OnTunnel(const link::v1::OpenTunnel&, std::shared_ptr<agent::Tunnel> tunnel) {
  tunnel->SendError(ReasonError(absl::StatusCode::kUnimplemented, "WORKER_UNAVAILABLE",
                                "a scripted agent runs no commands"));
}

void ScriptedAgent::OnRevoked(const std::string&) {
  ++counters_.revoked;
}

void ScriptedAgent::OnObservationsAcked(size_t rows) {
  counters_.rows_acked += rows;
  if (flooding_) TouchAll();
}

absl::Duration ScriptedAgent::Draw(absl::Duration mean) {
  const double unit = static_cast<double>(rng_.Below(1'000'001)) / 500'000.0 - 1.0;  // [-1, 1]
  return mean * (1.0 + script_.spread * unit);
}

void ScriptedAgent::Take(const link::v1::Assignment& row) {
  Held& held = held_[row.name()];
  const bool known = held.version != 0;
  const bool same_attempt =
      known && row.has_image() && held.row.image().attempt() == row.image().attempt();
  held.version = row.version();
  held.row = row;
  if (!known) Count(held, +1);
  if (row.has_image()) {
    if (!same_attempt || !IsReady(held.told)) StartImage(held);
    return;
  }
  if (row.has_snapshot()) return TellSnapshot(held);
  if (row.bunker().desired() == link::v1::BunkerAssignment::STOPPED)
    return Arm(held, script_.stop_delay, &ScriptedAgent::FinishStop);
  // A next incarnation is a boot anew; within one, only a pause comes and goes.
  const bool same_life = known && held.told.has_bunker() &&
                         held.told.bunker().incarnation() == row.bunker().incarnation();
  if (!known || (!same_life && held.told.has_bunker())) return StartBunker(held);
  const auto status = held.told.bunker().status();
  if (same_life && (status == BunkerObservation::RUNNING || status == BunkerObservation::PAUSED))
    FinishPause(held);
}

void ScriptedAgent::Remove(const std::string& name) {
  const auto it = held_.find(name);
  if (it == held_.end()) return;
  loop_.CancelTimer(it->second.timer);
  Count(it->second, -1);
  held_.erase(it);
  client_->RemoveObservation(name);
}

void ScriptedAgent::Arm(Held& held, absl::Duration mean, void (ScriptedAgent::*step)(Held&)) {
  loop_.CancelTimer(std::exchange(held.timer, 0));
  if (mean <= absl::ZeroDuration()) return (this->*step)(held);
  held.timer = loop_.AddTimer(Draw(mean), [this, name = held.row.name(), step] {
    const auto it = held_.find(name);
    if (it == held_.end()) return;
    it->second.timer = 0;
    (this->*step)(it->second);
  });
}

void ScriptedAgent::StartImage(Held& held) {
  if (script_.image_delay > absl::ZeroDuration()) {
    Count(held, -1);
    held.told.Clear();
    ImageObservation& seen = *held.told.mutable_image();
    seen.set_image_id(held.row.image().image_id());
    seen.set_attempt(held.row.image().attempt());
    seen.set_status(ImageObservation::BUILDING);
    seen.set_stage("pulling");
    seen.set_source("registry");
    seen.set_bytes_total(script_.image_bytes);
    Count(held, +1);
    Tell(held);
  }
  Arm(held, script_.image_delay, &ScriptedAgent::FinishImage);
}

void ScriptedAgent::FinishImage(Held& held) {
  const link::v1::ImageAssignment& wanted = held.row.image();
  const std::string digest =
      wanted.manifest_digest().empty() ? DigestOf(wanted) : wanted.manifest_digest();
  Count(held, -1);
  held.told.Clear();
  ImageObservation& seen = *held.told.mutable_image();
  seen.set_image_id(wanted.image_id());
  seen.set_attempt(wanted.attempt());
  if (rng_.Below(1'000'000) < static_cast<uint64_t>(script_.image_failures * 1e6)) {
    seen.set_status(ImageObservation::FAILED);
    seen.set_error_code("REGISTRY_UNREACHABLE");
    seen.set_error_message("the script of this agent says so");
    seen.set_retryable(true);
  } else {
    seen.set_status(ImageObservation::READY);
    seen.set_source("registry");
    seen.set_bytes_done(script_.image_bytes);
    seen.set_bytes_total(script_.image_bytes);
    link::v1::Resolved& resolved = *seen.mutable_resolved();
    resolved.set_repository("registry.example/scripted");
    resolved.set_manifest_digest(digest);
    resolved.set_layers_bytes(script_.image_bytes);
    resolved.mutable_config()->add_cmd("/bin/sh");
    resolved.mutable_config()->add_env("PATH=/usr/bin:/bin");
    resolved.mutable_config()->set_arch(options_.facts.arch());
    seen.set_recipe_digest("sha256:" + Sha256Hex("recipe " + digest));
    seen.set_rootfs_digest("fsverity-sha256:" + Sha256Hex("rootfs " + digest));
    seen.set_allocated_bytes(script_.image_bytes);
    seen.set_apparent_bytes(script_.image_bytes);
  }
  Count(held, +1);
  const std::string image_id = wanted.image_id();
  Tell(held);
  BootWaiting(image_id);
}

bool ScriptedAgent::ImageReady(const std::string& image_id) const {
  const auto it = held_.find("images/" + image_id);
  return it != held_.end() && IsReady(it->second.told);
}

// Until the image is there nothing is told of the bunker, as with a real agent's queue.
void ScriptedAgent::StartBunker(Held& held) {
  if (ImageReady(held.row.bunker().image_id()))
    Arm(held, script_.boot_delay, &ScriptedAgent::FinishBoot);
}

void ScriptedAgent::BootWaiting(const std::string& image_id) {
  if (!ImageReady(image_id)) return;
  std::vector<std::string> names;
  for (const auto& [name, held] : held_) {
    const bool waits = held.row.has_bunker() && held.told.name().empty() && held.timer == 0 &&
                       held.row.bunker().desired() != link::v1::BunkerAssignment::STOPPED;
    if (waits && held.row.bunker().image_id() == image_id) names.push_back(name);
  }
  for (const std::string& name : names) StartBunker(held_.at(name));
}

void ScriptedAgent::FinishBoot(Held& held) {
  Count(held, -1);
  held.told.Clear();
  BunkerObservation& seen = *held.told.mutable_bunker();
  seen.set_bunker_id(held.row.bunker().bunker_id());
  seen.set_incarnation(held.row.bunker().incarnation());
  if (rng_.Below(1'000'000) < static_cast<uint64_t>(script_.boot_failures * 1e6)) {
    seen.set_status(BunkerObservation::FAILED);
    seen.set_status_reason("BOOT_FAILED");
    seen.set_status_message("the script of this agent says so");
    seen.set_disk_kept(held.row.bunker().keep_disk());
  } else {
    seen.set_status(BunkerObservation::RUNNING);
    seen.set_isolation(options_.facts.isolation());
    seen.set_start_kind("cold");
    seen.mutable_timings()->set_boot_ms(absl::ToDoubleMilliseconds(script_.boot_delay));
    ++counters_.booted;
  }
  Count(held, +1);
  Tell(held);
}

// There at once: no bytes are copied.
void ScriptedAgent::TellSnapshot(Held& held) {
  const link::v1::SnapshotAssignment& wanted = held.row.snapshot();
  const bool gone = wanted.desired() == link::v1::SnapshotAssignment::GONE;
  held.told.Clear();
  link::v1::SnapshotObservation& seen = *held.told.mutable_snapshot();
  seen.set_snapshot_id(wanted.snapshot_id());
  seen.set_status(gone ? link::v1::SnapshotObservation::GONE
                       : link::v1::SnapshotObservation::READY);
  seen.set_size_bytes(gone ? 0 : 1 << 20);
  Tell(held);
}

// Takes no time, as in a real VM.
void ScriptedAgent::FinishPause(Held& held) {
  Count(held, -1);
  const bool paused = held.row.bunker().desired() == link::v1::BunkerAssignment::PAUSED;
  held.told.mutable_bunker()->set_status(paused ? BunkerObservation::PAUSED
                                                : BunkerObservation::RUNNING);
  Count(held, +1);
  Tell(held);
}

void ScriptedAgent::FinishStop(Held& held) {
  Count(held, -1);
  held.told.Clear();
  BunkerObservation& seen = *held.told.mutable_bunker();
  seen.set_bunker_id(held.row.bunker().bunker_id());
  seen.set_incarnation(held.row.bunker().incarnation());
  seen.set_status(BunkerObservation::STOPPED);
  seen.set_disk_kept(held.row.bunker().keep_disk());
  Count(held, +1);
  Tell(held);
}

void ScriptedAgent::Tell(Held& held) {
  held.told.set_name(held.row.name());
  if (client_ != nullptr) client_->UpsertObservation(held.told);
}

void ScriptedAgent::Count(const Held& held, int64_t sign) {
  const auto one = static_cast<uint64_t>(sign);  // wraps round for -1, as meant
  if (held.row.has_bunker()) counters_.bunkers_held += one;
  if (IsRunning(held.told)) counters_.bunkers_running += one;
  if (IsReady(held.told)) counters_.images_ready += one;
}

void ScriptedAgent::Flood(bool on) {
  flooding_ = on;
  if (on) TouchAll();
}

void ScriptedAgent::TouchAll() {
  if (client_ == nullptr) return;
  activity_ms_ = std::max(activity_ms_ + 1, absl::ToUnixMillis(absl::Now()));
  for (auto& [name, held] : held_) {
    if (!IsRunning(held.told)) continue;
    held.told.mutable_bunker()->set_last_activity_unix_ms(activity_ms_);
    Tell(held);
  }
}

std::map<std::string, std::string> ScriptedAgent::Dump() const {
  std::map<std::string, std::string> states;
  for (const auto& [name, held] : held_) {
    std::string state = "assigned";
    if (held.told.has_image()) state = ImageObservation::Status_Name(held.told.image().status());
    if (held.told.has_bunker()) state = BunkerObservation::Status_Name(held.told.bunker().status());
    states[name] = state;
  }
  return states;
}

}  // namespace bunker::test

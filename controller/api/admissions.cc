#include "controller/api/admissions.h"

#include <algorithm>
#include <utility>

#include "controller/engine/accounts.h"

namespace bunker::controller {
namespace {

// Of a timer; a later expiry is looked at again then.
constexpr absl::Duration kLongestTimer = absl::Hours(24);

template <typename T>
bool HasId(const std::vector<Change<T>>& changes, const std::string& id) {
  return std::any_of(changes.begin(), changes.end(),
                     [&](const Change<T>& change) { return change.id == id; });
}

bool Concerns(const ChangeSet& changes, const Caller& caller) {
  if (HasId(changes.api_keys, caller.key_id) || HasId(changes.users, caller.user_id) ||
      HasId(changes.tenants, caller.tenant_id)) {
    return true;
  }
  return std::any_of(changes.user_groups.begin(), changes.user_groups.end(),
                     [&](const Change<UserGroup>& change) {
                       const UserGroup& row = change.after ? *change.after : *change.before;
                       return row.tenant_id == caller.tenant_id;
                     });
}

}  // namespace

void Admission::OnLost(Lost lost) {
  if (!status_.ok() && lost) return lost(status_);
  lost_ = std::move(lost);
}

std::shared_ptr<Admission> Admissions::Add(const MethodRule& rule, const std::string& key_sha256,
                                           const Caller& caller, const Engine& engine) {
  if (key_sha256.empty()) {
    auto admission = std::make_shared<Admission>();
    admission->caller_ = caller;
    return admission;
  }
  if (!std::exchange(watching_, true)) {
    core_.Watch([this, alive = alive_](const ChangeSet& changes) {
      if (*alive) OnChanges(changes);
    });
  }
  const Id id = next_id_++;
  std::shared_ptr<Admission> admission(new Admission(),
                                       [this, id, alive = alive_](Admission* gone) {
                                         if (*alive) {
                                           core_.loop().CancelTimer(gone->timer_);
                                           entries_.erase(id);
                                           dirty_.erase(id);
                                         }
                                         delete gone;
                                       });
  admission->rule_ = &rule;
  admission->key_sha256_ = key_sha256;
  admission->caller_ = caller;
  entries_[id] = admission;
  const auto key = engine.accounts().FindApiKey(OperatorCaller(), caller.key_id);
  if (key.ok() && (*key)->expires_at) ArmExpiry(id, *admission, *(*key)->expires_at);
  return admission;
}

void Admissions::ArmExpiry(Id id, Admission& admission, absl::Time expires_at) {
  const absl::Duration left =
      std::clamp(expires_at - core_.loop().Now(), absl::ZeroDuration(), kLongestTimer);
  // A moment later than the expiry itself, so that the check finds it past.
  admission.timer_ = core_.loop().AddTimer(left + absl::Milliseconds(1), [this, id, expires_at] {
    const auto it = entries_.find(id);
    const auto found = it == entries_.end() ? nullptr : it->second.lock();
    if (found == nullptr) return;
    found->timer_ = 0;
    if (core_.loop().Now() < expires_at) return ArmExpiry(id, *found, expires_at);
    MarkDirty(id);
  });
}

void Admissions::OnChanges(const ChangeSet& changes) {
  if (changes.api_keys.empty() && changes.users.empty() && changes.tenants.empty() &&
      changes.user_groups.empty()) {
    return;
  }
  for (const auto& [id, entry] : entries_) {
    const auto admission = entry.lock();
    if (admission != nullptr && Concerns(changes, admission->caller_)) MarkDirty(id);
  }
}

void Admissions::MarkDirty(Id id) {
  dirty_.insert(id);
  if (std::exchange(check_posted_, true)) return;
  core_.Post([this, alive = alive_](Engine& engine, Turn& turn) {
    if (*alive) CheckDirty(engine, turn);
  });
}

void Admissions::CheckDirty(Engine& engine, Turn& turn) {
  check_posted_ = false;
  for (const Id id : std::exchange(dirty_, {})) {
    const auto it = entries_.find(id);
    const auto admission = it == entries_.end() ? nullptr : it->second.lock();
    if (admission == nullptr || !admission->status_.ok()) continue;
    const absl::StatusOr<AuthResult> auth = engine.Authenticate(turn, admission->key_sha256_);
    absl::Status status = auth.status();
    if (auth.ok()) {
      admission->caller_ = CallerOf(*auth);
      status = CheckRule(*admission->rule_, admission->caller_);
    }
    if (status.ok()) continue;
    turn.AfterCommit([admission, status](const absl::Status& committed) {
      // A rollback means that what was seen here did not happen: the next change tells.
      if (!committed.ok()) return;
      admission->status_ = status;
      if (admission->lost_) std::exchange(admission->lost_, nullptr)(status);
    });
  }
}

}  // namespace bunker::controller

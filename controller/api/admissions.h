// What goes on after its call's turn (streams, shells, waits) ends when its caller is no longer
// let in: the key revoked or expired, its user disabled or deleted, the tenant suspended, the
// permission taken away, by whatever way it was held.
//
// Driven by what is committed, and by a timer at the key's expiry: nothing polls.
// Not thread-safe: on the core's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "controller/api/auth.h"
#include "controller/engine/core.h"

namespace bunker::controller {

// One caller of one rule, watched from its admission for as long as somebody holds it. Made by the
// dispatcher (CallContext::admission). Let go of it on the loop.
class Admission {
 public:
  // Once, with AUTH_TOKEN_INVALID, SESSION_EXPIRED or AUTHZ_PERMISSION_DENIED; at once where it is
  // lost already. Replaces the one before; null = nobody. On the loop.
  using Lost = std::function<void(const absl::Status&)>;
  void OnLost(Lost lost);

  // As it is now: a role or a permission may have changed since the call.
  const Caller& caller() const { return caller_; }
  const absl::Status& status() const { return status_; }

 private:
  friend class Admissions;

  const MethodRule* rule_ = nullptr;
  std::string key_sha256_;  // "" = the operator, who is always let in
  Caller caller_;
  absl::Status status_;
  Lost lost_;
  Loop::TimerId timer_ = 0;
};

class Admissions {
 public:
  // `core` must outlive it.
  explicit Admissions(Core& core) : core_(core) {}
  ~Admissions() { *alive_ = false; }
  Admissions(const Admissions&) = delete;
  Admissions& operator=(const Admissions&) = delete;

  // In the event that admitted the call. `key_sha256` "" = the operator.
  std::shared_ptr<Admission> Add(const MethodRule& rule, const std::string& key_sha256,
                                 const Caller& caller, const Engine& engine);

  size_t size() const { return entries_.size(); }

 private:
  using Id = uint64_t;

  void OnChanges(const ChangeSet& changes);
  void MarkDirty(Id id);
  void CheckDirty(Engine& engine, Turn& turn);
  void ArmExpiry(Id id, Admission& admission, absl::Time expires_at);

  Core& core_;
  bool watching_ = false;
  bool check_posted_ = false;
  Id next_id_ = 1;
  std::map<Id, std::weak_ptr<Admission>> entries_;
  std::set<Id> dirty_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bunker::controller

// One use of a bunker by a caller (a command, a process, a shell), from its arrival on: waits for a
// bunker that is still coming up, writes the audit row, and keeps the bunker from counting as idle
// until the use ends.
//
// On the core's loop, but for End().
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "controller/api/dispatcher.h"

namespace bunker::controller {

class BunkerUse : public std::enable_shared_from_this<BunkerUse> {
 public:
  // Once, after the commit: the running bunker, or why not (NOT_FOUND, BUNKER_NOT_RUNNING, …; it
  // is in the audit row then). Not after Cancel().
  using Ready = std::function<void(const absl::StatusOr<RowPtr<Bunker>>&)>;

  // `ref`: an id or name. Waits until `deadline` for a bunker that is coming up. `counts`: false
  // where it does not keep the bunker from being idle.
  static std::shared_ptr<BunkerUse> Begin(CallContext& context, std::string ref,
                                          absl::Time deadline, bool counts, Ready ready);

  // Nobody waits any more.
  void Cancel();
  // The use is over. Repeatable; on any thread.
  void End();

 private:
  BunkerUse(Core& core, Caller caller, std::shared_ptr<CallAudit> audit, std::string ref,
            absl::Time deadline, bool counts, Ready ready)
      : core_(core),
        caller_(std::move(caller)),
        audit_(std::move(audit)),
        ref_(std::move(ref)),
        deadline_(deadline),
        counts_(counts),
        ready_(std::move(ready)) {}

  void Try(Engine& engine, Turn& turn);
  void Wait(const RowPtr<Bunker>& bunker);
  void Refuse(Engine& engine, Turn& turn, const absl::Status& why);
  void Tell(const absl::StatusOr<RowPtr<Bunker>>& outcome);

  Core& core_;
  const Caller caller_;
  const std::shared_ptr<CallAudit> audit_;  // may be null
  std::string ref_;
  const absl::Time deadline_;
  const bool counts_;
  Ready ready_;  // null: told, or cancelled
  Core::WaitId wait_ = 0;
  bool counted_ = false;
};

}  // namespace bunker::controller

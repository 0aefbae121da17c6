#include "controller/api/bunker_use.h"

#include <utility>

namespace bunker::controller {
namespace {

bool IsComingUp(const Bunker& bunker) {
  return bunker.live() && (bunker.status == BunkerStatus::kPending ||
                           bunker.status == BunkerStatus::kProvisioning);
}

}  // namespace

std::shared_ptr<BunkerUse> BunkerUse::Begin(CallContext& context, std::string ref,
                                            absl::Time deadline, bool counts, Ready ready) {
  std::shared_ptr<BunkerUse> use(new BunkerUse(context.core, context.caller, context.audit,
                                               std::move(ref), deadline, counts,
                                               std::move(ready)));
  use->Try(context.engine, context.turn);
  return use;
}

void BunkerUse::Tell(const absl::StatusOr<RowPtr<Bunker>>& outcome) {
  if (ready_) std::exchange(ready_, nullptr)(outcome);
}

void BunkerUse::Refuse(Engine& engine, Turn& turn, const absl::Status& why) {
  if (audit_) audit_->Refused(engine, turn, why);
  turn.AfterCommit([self = shared_from_this(), why](const absl::Status&) { self->Tell(why); });
}

void BunkerUse::Try(Engine& engine, Turn& turn) {
  const auto bunker = engine.FindBunker(caller_, ref_);
  if (!bunker.ok()) return Refuse(engine, turn, bunker.status());
  ref_ = (*bunker)->id;  // by the next look the name may be another's
  if (IsComingUp(**bunker) && turn.now() < deadline_) {
    turn.AfterCommit([self = shared_from_this(), row = *bunker](const absl::Status& committed) {
      committed.ok() ? self->Wait(row) : self->Tell(committed);
    });
    return;
  }
  const auto begun = counts_ ? engine.BeginExec(turn, caller_, ref_)
                             : engine.FindRunningBunker(caller_, ref_);
  if (!begun.ok()) return Refuse(engine, turn, begun.status());
  if (audit_) audit_->Started(engine, turn, **begun);
  counted_ = counts_;
  turn.AfterCommit([self = shared_from_this(), row = *begun](const absl::Status& committed) {
    if (!committed.ok() || !self->ready_) self->End();
    committed.ok() ? self->Tell(row) : self->Tell(committed);
  });
}

void BunkerUse::Wait(const RowPtr<Bunker>& bunker) {
  if (!ready_) return;
  wait_ = core_.WaitForBunker(
      bunker, {BunkerStatus::kRunning}, deadline_, [self = shared_from_this()](RowPtr<Bunker>) {
        self->core_.Post([self](Engine& engine, Turn& turn) {
          if (self->ready_) self->Try(engine, turn);
        });
      });
}

void BunkerUse::Cancel() {
  ready_ = nullptr;
  core_.CancelWait(std::exchange(wait_, 0));
}

void BunkerUse::End() {
  core_.Post([self = shared_from_this()](Engine& engine, Turn& turn) {
    if (std::exchange(self->counted_, false)) engine.EndExec(turn, self->ref_);
  });
}

}  // namespace bunker::controller

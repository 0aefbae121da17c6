#include "agent/reconcile/main_watch.h"

#include <algorithm>
#include <utility>

#include "agent/exec/exec_stream.h"

namespace bunker::agent {
namespace {

using guest::v1::MainRow;
using link::v1::MainState;

MainState::State StateOf(MainRow::State state) {
  switch (state) {
    case MainRow::STARTING: return MainState::STARTING;
    case MainRow::RUNNING: return MainState::RUNNING;
    case MainRow::WAITING: return MainState::WAITING;
    case MainRow::EXITED: return MainState::EXITED;
    case MainRow::FAILED: return MainState::FAILED;
    default: return MainState::STATE_UNSPECIFIED;
  }
}

// What a guest says, made fit to pass on.
MainState StateOf(const MainRow& row) {
  MainState state;
  state.set_state(StateOf(row.state()));
  state.set_ended(row.ended());
  state.set_exit_code(std::clamp(row.exit_code(), 0, 255));
  state.set_signal(CleanGuestText(row.signal()).substr(0, 16));
  state.set_restarts(row.restarts());
  state.set_message(CleanGuestText(row.message()));
  return state;
}

}  // namespace

void MainWatch::Add(const std::string& bunker_id, uint32_t incarnation,
                    std::shared_ptr<GuestChannel> channel) {
  Remove(bunker_id);
  Watched& watched = watched_[bunker_id];
  watched.number = ++last_number_;
  watched.incarnation = incarnation;
  watched.channel = std::move(channel);
  Ask(bunker_id, watched.number);
}

MainWatch::Watched* MainWatch::Find(const std::string& bunker_id, uint64_t number) {
  const auto found = watched_.find(bunker_id);
  return found != watched_.end() && found->second.number == number ? &found->second : nullptr;
}

void MainWatch::Ask(const std::string& bunker_id, uint64_t number) {
  Watched* watched = Find(bunker_id, number);
  if (watched == nullptr) return;
  guest::v1::ProcessCall call;
  call.mutable_main_wait()->set_seen_serial(watched->seen_serial);
  ExecCallbacks callbacks;  // on the channel's thread
  callbacks.on_answer = [this, bunker_id, number](const guest::v1::ProcessAnswer& answer) {
    loop_.Post([this, bunker_id, number, row = answer.main()] {
      OnAnswer(bunker_id, number, row);
    });
  };
  callbacks.on_error = [this, bunker_id, number](const absl::Status&) {
    loop_.Post([this, bunker_id, number] { AskLater(bunker_id, number, kRetry); });
  };
  auto question = watched->channel->CallProcess(call, std::move(callbacks));
  if (!question.ok()) return AskLater(bunker_id, number, kRetry);
  watched->question = *std::move(question);
}

void MainWatch::AskLater(const std::string& bunker_id, uint64_t number, absl::Duration pause) {
  if (Find(bunker_id, number) == nullptr) return;
  loop_.AddTimer(pause, [this, bunker_id, number] { Ask(bunker_id, number); });
}

void MainWatch::OnAnswer(const std::string& bunker_id, uint64_t number, const MainRow& row) {
  Watched* watched = Find(bunker_id, number);
  if (watched == nullptr) return;
  watched->seen_serial = row.serial();
  on_main_(bunker_id, watched->incarnation, StateOf(row));
  AskLater(bunker_id, number, kPause);
}

}  // namespace bunker::agent

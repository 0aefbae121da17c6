// Asks the guests of bunkers with a main program what has become of it, and tells each change.
//
// One question a bunker is under way at a time; the guest answers it once there is news. A guest
// that answers faster than kPause is asked no faster than that. On the loop only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "agent/exec/guest_channel.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/loop/event_loop.h"

namespace bunker::agent {

class MainWatch {
 public:
  static constexpr absl::Duration kPause = absl::Milliseconds(250);
  static constexpr absl::Duration kRetry = absl::Seconds(1);  // of a guest that does not answer

  using OnMain = std::function<void(const std::string& bunker_id, uint32_t incarnation,
                                    const link::v1::MainState& state)>;

  // The loop outlives this, and runs nothing any more once this is gone.
  MainWatch(Loop& loop, OnMain on_main) : loop_(loop), on_main_(std::move(on_main)) {}

  // From now on, in place of what that bunker had before.
  void Add(const std::string& bunker_id, uint32_t incarnation,
           std::shared_ptr<GuestChannel> channel);
  void Remove(const std::string& bunker_id) { watched_.erase(bunker_id); }

 private:
  struct Watched {
    uint64_t number = 0;  // tells this one from its predecessor in what was posted
    uint32_t incarnation = 0;
    std::shared_ptr<GuestChannel> channel;
    std::unique_ptr<ExecHandle> question;  // goes before its channel
    uint64_t seen_serial = 0;
  };

  Watched* Find(const std::string& bunker_id, uint64_t number);
  void Ask(const std::string& bunker_id, uint64_t number);
  void AskLater(const std::string& bunker_id, uint64_t number, absl::Duration pause);
  void OnAnswer(const std::string& bunker_id, uint64_t number, const guest::v1::MainRow& row);

  Loop& loop_;
  const OnMain on_main_;
  uint64_t last_number_ = 0;
  std::map<std::string, Watched> watched_;
};

}  // namespace bunker::agent

// Tickets that stand for a key once, for clients that can't send a header: a browser's WebSocket.
// Kept in memory alone, as hashes; a restart of the controller forgets them.
//
// Thread-safe.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "common/base/mutex.h"

namespace bunker::controller {

class ShellTickets {
 public:
  static constexpr absl::Duration kLife = absl::Seconds(30);

  struct Ticket {
    std::string key_sha256;  // of the key that asked for it
    std::string bunker_id;   // the only one it is good for
    absl::Time expires_at;
  };

  // The ticket's text; "": too many are out.
  std::string Issue(std::string key_sha256, std::string bunker_id, absl::Time now);
  // What it stands for, once; nothing where it is unknown, used or too old.
  std::optional<Ticket> Take(std::string_view text, absl::Time now);

 private:
  static constexpr size_t kMaxTickets = 10'000;

  Mutex mutex_;
  std::map<std::string, Ticket> tickets_ ABSL_GUARDED_BY(mutex_);  // by SHA-256
};

}  // namespace bunker::controller

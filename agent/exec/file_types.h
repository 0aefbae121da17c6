// What comes of an operation on a guest's files.
#pragma once

#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::agent {

// As ExecCallbacks: on the channel's thread, one at a time, without any lock held; they must not
// block. Exactly one of on_end and on_error is last. What they get has been checked for size and
// order, not for sense: the guest may lie about its files.
struct FileCallbacks {
  std::function<void(const guest::v1::FileHead&)> on_head;  // at most once, before data
  std::function<void(std::string_view data)> on_data;       // ≤ 32 KiB; to be acked
  std::function<void()> on_room;                            // after TryWrite took less
  std::function<void(const guest::v1::FileEnd&)> on_end;    // it was done
  std::function<void(const absl::Status&)> on_error;        // it was not, or nobody knows
};

}  // namespace bunker::agent

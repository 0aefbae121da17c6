// The transparent proxy of one bunker: takes the connections that the rules led to it, lets those
// through that go to an address the guest was told, under the name it was told, and carries bytes.
//
// Lives on the guard's loop. Bounded: connections, bytes held per direction, time without any.
#pragma once

#include <map>
#include <memory>

#include "absl/status/status.h"
#include "agent/net/guard_policy.h"
#include "agent/net/proxy_connection.h"
#include "common/loop/event_loop.h"

namespace bunker::agent {

class Proxy {
 public:
  // `listener`: listening, non-blocking, on the guest's side. Everything must outlive this.
  Proxy(EventLoop& loop, GuardPolicy& policy, int listener);
  ~Proxy();

  absl::Status Start();

 private:
  void OnReadable();

  EventLoop& loop_;
  GuardPolicy& policy_;
  const int listener_;
  std::map<uint64_t, std::unique_ptr<ProxyConnection>> connections_;
  uint64_t next_serial_ = 1;
};

}  // namespace bunker::agent

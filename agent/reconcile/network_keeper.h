// Looks after the networks of running bunkers again and again: puts back rules that somebody
// flushed and a guard that ended, and brings up what happened.
//
// On the loop; the looking itself on a pool thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "agent/net/bunker_network.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/loop/event_loop.h"
#include "common/loop/worker_pool.h"

namespace bunker::agent {

class NetworkKeeper {
 public:
  // On the loop; newest first.
  using OnEvents = std::function<void(const std::string& bunker_id, uint32_t incarnation,
                                      const std::vector<link::v1::NetworkEvent>& events)>;

  // All must outlive the keeper; `pool` must be shut down before the loop goes.
  NetworkKeeper(EventLoop& loop, WorkerPool& pool, BunkerNetworks& networks, OnEvents on_events)
      : loop_(loop), pool_(pool), networks_(networks), on_events_(std::move(on_events)) {}

  void Start() { Look(); }

 private:
  void Look();

  EventLoop& loop_;
  WorkerPool& pool_;
  BunkerNetworks& networks_;
  const OnEvents on_events_;
};

}  // namespace bunker::agent

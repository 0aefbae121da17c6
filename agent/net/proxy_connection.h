// One connection of a guest, from its first bytes to its end. See proxy.h.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "agent/net/guard_policy.h"
#include "agent/net/http_gate.h"
#include "common/base/unique_fd.h"
#include "common/loop/event_loop.h"

namespace bunker::agent {

class ProxyConnection {
 public:
  // `on_end` is called once, when the connection has ended; it must not destroy this.
  ProxyConnection(EventLoop& loop, GuardPolicy& policy, UniqueFd guest, Ipv4 address, uint16_t port,
                  std::function<void()> on_end);
  ~ProxyConnection();

  void Start();

 private:
  // One direction: what was read and not yet written.
  struct Flow {
    std::string bytes;
    bool read_ended = false;   // its reader has seen the end
    bool write_ended = false;  // and its writer has told it on
  };

  void OnGuest(uint32_t ready);
  void OnFar(uint32_t ready);
  void OnTimer();
  // False where the connection ended.
  bool ReadGuest();
  bool TakeGuestBytes(std::string_view bytes);
  bool Sniff();
  bool Gate(std::string_view bytes);
  bool Dial(const std::string& name);
  bool ReadFar();
  bool Write(int fd, Flow* flow);
  bool Watch();
  void Refuse(const char* rule, const std::string& name, std::string_view last_words);
  void End();
  bool MayReach(const std::string& name) const;

  EventLoop& loop_;
  GuardPolicy& policy_;
  UniqueFd guest_;
  UniqueFd far_;
  const Ipv4 address_;
  const uint16_t port_;
  const std::function<void()> on_end_;

  enum class State { kSniffing, kConnecting, kCarrying, kEnded };
  State state_ = State::kSniffing;
  bool is_http_ = false;
  std::string sniffed_;
  HttpGate gate_;
  Flow out_;  // guest → far
  Flow in_;   // far → guest
  uint32_t guest_interest_ = 0;
  uint32_t far_interest_ = 0;
  EventLoop::TimerId timer_ = 0;
  absl::Duration active_at_;
};

}  // namespace bunker::agent

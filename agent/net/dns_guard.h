// Answers a guest's questions of names: those that are allowed, by asking the worker's own
// resolver with a question of its own making; all others at once, without anybody being asked.
//
// Lives on the guard's loop. Bounded: questions per second, questions under way.
#pragma once

#include <netinet/in.h>

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/net/dns_message.h"
#include "agent/net/guard_policy.h"
#include "common/base/rng.h"
#include "common/base/unique_fd.h"
#include "common/loop/event_loop.h"

namespace bunker::agent {

class DnsGuard {
 public:
  // `socket`: a bound UDP socket on the guest's side. Everything must outlive this.
  DnsGuard(EventLoop& loop, GuardPolicy& policy, int socket);
  ~DnsGuard();

  absl::Status Start();

 private:
  struct Asking {
    DnsQuestion question;
    sockaddr_in guest{};
    uint16_t id = 0;
    std::string query;     // our own, or the guest's with another id
    bool relayed = false;  // any_name, and no question for addresses
    size_t attempt = 0;
    UniqueFd socket;
    EventLoop::TimerId timer = 0;
  };

  void OnReadable();
  void OnQuestion(std::string_view bytes, const sockaddr_in& guest);
  void Ask(uint64_t serial);
  void OnReply(uint64_t serial);
  void Finish(uint64_t serial, const DnsReply& reply);
  void Fail(uint64_t serial);
  void Drop(uint64_t serial);
  void Answer(const DnsQuestion& question, const sockaddr_in& guest, int rcode,
              const std::vector<DnsAddress>& addresses);
  void Send(std::string_view bytes, const sockaddr_in& guest);
  bool TakeTurn();

  EventLoop& loop_;
  GuardPolicy& policy_;
  const int socket_;
  SystemRng rng_;
  std::map<uint64_t, Asking> asking_;
  uint64_t next_serial_ = 1;
  double turns_;
  absl::Duration turns_at_;
};

}  // namespace bunker::agent

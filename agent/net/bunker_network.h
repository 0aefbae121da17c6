// The networks of this worker's bunkers: a namespace each, with a tap for the VM, packet rules, a
// guard, and, where the profile forwards, an uplink. See agent/net/README.md.
//
// All that belongs to a bunker is named after its VM's folder: what a crash leaves is found again
// by that name alone, and nobody else's is ever touched. Needs root; calls block (some ten
// milliseconds); thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/net/address_rules.h"
#include "agent/net/ruleset.h"
#include "agent/net/transit_rules.h"
#include "bunker/agent/v1/netguard.pb.h"
#include "common/base/mutex.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

struct NetworkOptions {
  std::vector<std::string> registry_names;  // of the profile `registry`; empty: the worker's own
  std::vector<uint16_t> ports = {80, 443};
  std::vector<std::string> refused;       // ranges
  std::vector<std::string> exempt;        // ranges and names
  std::string uplinks = "10.201.0.0/16";  // two addresses a bunker
  uint32_t slots = 1;                     // bunkers at once
  uid_t guard_uid = 0;
  std::string state_dir;  // remembers whether forwarding was off
  std::vector<std::string> bridges;  // of the host, that bunkers may attach to
};

struct NetworkRequest {
  std::string bunker_id;
  uint32_t incarnation = 0;
  std::string folder;                  // the VM's, which exists
  std::string profile;                 // registry | allowlisted | unrestricted | transit
  std::vector<std::string> allowlist;  // of the profile allowlisted
  std::vector<TransitCard> cards;      // of the profile transit
  uint32_t slot = 0;                   // no other running bunker's on this host: its uid
  uint32_t bandwidth_mbit = 0;         // each way; 0: no limit
};

struct BunkerNetwork {
  UniqueFd tap;            // for the VMM; the device goes with its last user
  std::vector<UniqueFd> more_taps;  // of further cards
  std::string private_ip;  // unique among this worker's bunkers, but with transit; "": none
};

// What the agent can enforce, and why not more.
struct NetworkAbilities {
  std::vector<std::string> profiles;
  std::string reason;  // "" where all
  std::vector<std::string> bridges = {};  // that are there, and that bunkers may attach to
};

class BunkerNetworks {
 public:
  // An error names the option that is wrong.
  static absl::StatusOr<std::unique_ptr<BunkerNetworks>> Create(NetworkOptions options);

  // The names of the profile `registry`. Looks for the worker's own the first time, which may take
  // some seconds.
  const std::vector<std::string>& RegistryNames();

  // Tries it: builds a namespace with a tap and rules, and takes it down.
  NetworkAbilities Probe();

  // Everything in place and up, rules first, and kept so from here on. After an error nothing is
  // left.
  absl::StatusOr<BunkerNetwork> SetUp(const NetworkRequest& request);

  // One that an earlier life of the agent set up: it is kept from here on.
  void Adopt(const NetworkRequest& request);

  // Guard, namespace and all in it. What is not there is no error.
  absl::Status TearDown(const std::string& folder);

  // Those that are to be kept.
  std::vector<NetworkRequest> Kept() const;

  // Puts back what is missing or was changed: the rules, the guard. Returns what happened in the
  // bunker's network of late, newest first. kNotFound where it was taken down meanwhile.
  absl::StatusOr<v1::GuardReport> Keep(const std::string& folder);

 private:
  struct Parsed {
    std::vector<Ipv4Range> refused, exempt_ranges;
    std::vector<std::string> exempt_names;
    Ipv4Range uplinks;
  };

  BunkerNetworks(NetworkOptions options, Parsed parsed)
      : options_(std::move(options)), parsed_(std::move(parsed)) {}

  absl::Status Build(const std::string& name, const NetworkRequest& request, BunkerNetwork* out,
                     std::string* rules);
  std::vector<std::string> Bridges() const;
  absl::StatusOr<BunkerNetwork> BuildCards(const std::string& name, const NetworkRequest& request,
                                           std::string* rules);
  absl::Status ConnectUplink(const std::string& name, uint32_t slot);
  absl::Status OpenHost();
  absl::StatusOr<std::string> ApplyRules(const std::string& name, const NetworkRequest& request,
                                         bool is_first);
  absl::StatusOr<v1::GuardConfig> GuardConfigFor(const NetworkRequest& request);
  Ipv4 UplinkAddress(uint32_t slot) const;

  struct Entry {
    NetworkRequest request;
    bool kept = false;
    std::string rules;  // as they should read; "": not applied in this life of the agent
    Mutex busy;         // held by whoever changes this network
  };
  std::shared_ptr<Entry> EntryOf(const std::string& folder);
  absl::Status RestoreRules(Entry& entry);

  const NetworkOptions options_;
  const Parsed parsed_;
  std::once_flag registries_known_;
  std::vector<std::string> registries_;  // once known
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);  // by folder
  bool host_open_ ABSL_GUARDED_BY(mutex_) = false;
};

// A tap in a namespace of its own that leads nowhere; both go with the descriptor. For a VM that
// has a network card and is nobody's yet. Needs root.
absl::StatusOr<UniqueFd> MakeIdleTap();

// "bunker-" and the folder's name.
std::string NamespaceOf(const std::string& folder);

}  // namespace bunker::agent

// Bridges: who may register and see them, and which bunkers attach to them.
//
// As Engine: on the core's loop only, changes through the Turn, answers after the commit.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/engine/engine.h"
#include "controller/model/bridge.h"

namespace bunker::controller {

struct CreateBridgeSpec {
  std::string name;
  Scope scope = Scope::kTenant;
  std::set<std::string> tenant_ids;
  std::vector<std::string> workers;  // ids or names
};

class Bridges {
 public:
  Bridges(Engine& engine, Engine::State& state) : engine_(engine), state_(state) {}

  // NOT_FOUND for a bridge that no worker reports which the caller administers (of those named:
  // which one of them does not); SLUG_CONFLICT for one that is registered at this scope.
  absl::StatusOr<RowPtr<Bridge>> Create(Turn& turn, const Caller& caller,
                                        const CreateBridgeSpec& spec);
  // By id.
  absl::StatusOr<RowPtr<Bridge>> Find(const Caller& caller, const std::string& id) const;
  Page<Bridge> List(const Caller& caller, const PageSpec& page) const;
  bool MayChange(const Caller& caller, const Bridge& bridge) const;
  // RESOURCE_IN_USE while live bunkers attach.
  absl::Status Delete(Turn& turn, const Caller& caller, const std::string& id);

  // Finds the bridges of a bunker to be, by the names in its interfaces: NOT_FOUND for any that the
  // tenant may not use. VALIDATION_ERROR where a live bunker on the same bridge has its MAC or
  // address already: a guard that lets two say the same of themselves guards neither.
  absl::Status Resolve(const Caller& caller, CreateBunkerSpec& spec) const;

  // The workers where all these interfaces can be attached.
  std::set<std::string> WorkersFor(const std::vector<BunkerInterface>& interfaces) const;

  // Gives each interface without a MAC one that is made of the bunker's id.
  void FillMacs(Bunker& bunker) const;

 private:
  bool MaySee(const Caller& caller, const Bridge& bridge) const;
  bool StandsFor(const Bridge& bridge, const Worker& worker) const;
  absl::Status FillTenants(const Caller& caller, const CreateBridgeSpec& spec, Bridge& row) const;
  absl::Status FillWorkers(const Caller& caller, const CreateBridgeSpec& spec, Bridge& row) const;

  Engine& engine_;
  Engine::State& state_;
};

}  // namespace bunker::controller

#include "controller/api/bunker_spec.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "common/base/status_macros.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/interface_rules.h"
#include "controller/api/validate.h"

namespace bunker::controller {
namespace {

CreateBunkerSpec SpecOf(const v1::BunkerSpec& spec, absl::Time received_at) {
  CreateBunkerSpec out;
  out.image = spec.image();
  out.snapshot = spec.snapshot();
  out.name = spec.name();
  out.lifecycle_mode =
      ToModel<LifecycleMode>(spec.lifecycle_mode()).value_or(LifecycleMode::kEphemeral);
  out.network_profile =
      ToModel<NetworkProfile>(spec.network_profile()).value_or(NetworkProfile::kIsolated);
  for (const std::string& name : spec.network_allowlist()) {
    std::string low = absl::AsciiStrToLower(name);
    auto& names = out.network_allowlist;
    if (std::find(names.begin(), names.end(), low) == names.end()) names.push_back(std::move(low));
  }
  out.bandwidth_mbit = spec.bandwidth_mbit();
  out.disk_bytes_per_s = spec.disk_bytes_per_s();
  out.disk_iops = spec.disk_iops();
  if (spec.has_cpu_millicores()) out.cpu_millicores = spec.cpu_millicores();
  if (spec.has_memory_mb()) out.memory_mb = spec.memory_mb();
  if (spec.has_disk_mb()) out.disk_mb = static_cast<uint32_t>(spec.disk_mb());
  if (spec.has_max_lifetime_s()) out.max_lifetime_s = spec.max_lifetime_s();
  if (spec.has_idle_timeout_s()) out.idle_timeout_s = spec.idle_timeout_s();
  out.on_idle = ToModel<OnIdle>(spec.on_idle()).value_or(OnIdle::kStop);
  out.start = !spec.has_start() || spec.start();
  if (const std::string type = ModelEnumName(v1::SessionType_descriptor(), spec.session_type());
      !type.empty())
    out.session_type = type;
  out.session_ref = spec.session_ref();
  out.label_set.insert(spec.label_set().begin(), spec.label_set().end());
  out.worker_labels.insert(spec.worker_labels().begin(), spec.worker_labels().end());
  out.env_vars.insert(spec.env_vars().begin(), spec.env_vars().end());
  if (spec.has_main()) {
    MainProgram& main = out.main.emplace();
    main.args.assign(spec.main().args().begin(), spec.main().args().end());
    main.env.insert(spec.main().env().begin(), spec.main().env().end());
    main.restart = ToModel<MainRestart>(spec.main().restart()).value_or(MainRestart::kNever);
  }
  out.gpu_count = spec.gpu_count();
  out.gpu_type = spec.gpu_type();
  if (spec.has_replicas()) out.replicas = spec.replicas();
  out.received_at = received_at;
  return out;
}

}  // namespace

absl::StatusOr<CreateBunkerSpec> BunkerSpecOf(const CallContext& context,
                                              const v1::BunkerSpec& spec) {
  CreateBunkerSpec wanted = SpecOf(spec, context.info.received_at);
  if (wanted.main) wanted.main->allow_root = HasPermission(context.caller, "root");
  RETURN_IF_ERROR(CheckInterfacesFit(spec));
  RETURN_IF_ERROR(ValidateBunkerSpec(spec));
  wanted.interfaces = InterfacesOf(spec);
  if (context.caller.tenant_id.empty())
    return ValidationError("image",
                           "the operator has no tenant to own a bunker; use a tenant's key");
  return wanted;
}

}  // namespace bunker::controller

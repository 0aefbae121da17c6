#include "controller/api/validate.h"

#include <algorithm>

#include <fmt/format.h>

#include "common/base/converters.h"
#include "common/base/id.h"
#include "common/oci/reference.h"
#include "controller/api/interface_rules.h"
#include "controller/model/worker.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxMapEntries = 256;
constexpr size_t kMaxEnvBytes = 128u << 10;
constexpr size_t kMaxArgvBytes = 1u << 20;
constexpr size_t kMaxMainArgsBytes = 64u << 10;  // it is a part of the bunker's row
constexpr size_t kMaxArgBytes = 128u << 10;  // Linux: of one string of an argv

constexpr std::string_view kIdPrefixes[] = {"img_", "ag_",  "wrk_", "wtk_", "bnk_",
                                            "snap_", "key_", "tnt_", "ptr_", "usr_",
                                            "grp_", "qp_",  "qa_",  "br_",  "evt_"};

bool IsLowerAlnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool HasNul(std::string_view text) { return text.find('\0') != std::string_view::npos; }

size_t Characters(std::string_view utf8) {
  size_t count = 0;
  for (const char c : utf8) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

using StringMap = google::protobuf::Map<std::string, std::string>;

void CheckLabels(std::string_view field, const StringMap& labels, Validator* validator) {
  if (labels.size() > kMaxMapEntries)
    validator->Refuse(field, fmt::format("holds more than {} entries; send fewer", kMaxMapEntries));
  for (const auto& [key, value] : labels) {
    const std::string path = fmt::format("{}.{}", field, key.substr(0, 64));
    if (key.empty() || key.size() > 128 || HasNul(key))
      validator->Refuse(path, "a key needs 1 to 128 bytes without NUL");
    validator->Text(path, value, 1024);
  }
}

void CheckEnv(std::string_view field, const StringMap& env, Validator* validator) {
  size_t bytes = 0;
  for (const auto& [key, value] : env) {
    const std::string path = fmt::format("{}.{}", field, key.substr(0, 64));
    if (key.empty() || HasNul(key) || key.find('=') != std::string::npos)
      validator->Refuse(path, "is no name of a variable; use one without = and NUL");
    if (HasNul(value)) validator->Refuse(path, "must not contain NUL");
    bytes += key.size() + value.size() + 2;
  }
  if (bytes > kMaxEnvBytes)
    validator->Refuse(field, fmt::format("holds more than {} bytes; put large values into a file",
                                         kMaxEnvBytes));
}

void CheckGpuType(const v1::BunkerSpec& spec, Validator* validator) {
  const std::string& type = spec.gpu_type();
  const auto is_word = [](char c) {
    return IsLowerAlnum(c) || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
  };
  if (type.empty() || type.size() > 64 || !std::all_of(type.begin(), type.end(), is_word))
    validator->Refuse("gpu_type", "takes 1 to 64 letters, digits, dots, dashes or underscores");
  if (spec.gpu_count() == 0)
    validator->Refuse("gpu_type", "needs a gpu_count of at least 1; send one, or leave it out");
}

void CheckSource(const v1::BuildSource& source, Validator* validator) {
  switch (source.kind()) {
    case v1::BuildSource::KIND_OCI: {
      if (source.has_path())
        validator->Refuse("build_source.path", "belongs to kind tar; leave it out");
      if (source.ref().empty())
        return validator->Refuse("build_source.ref",
                                 "is required with kind oci; for example docker.io/r-base:4.4");
      const auto parsed = oci::ParseReference(source.ref());
      if (!parsed.ok())
        validator->Refuse("build_source.ref", ToStd(parsed.status().message()));
      return;
    }
    case v1::BuildSource::KIND_TAR:
      if (source.has_ref())
        validator->Refuse("build_source.ref", "belongs to kind oci; leave it out");
      if (source.path().empty())
        return validator->Refuse("build_source.path", "is required with kind tar");
      validator->Text("build_source.path", source.path(), 4000);
      if (source.path()[0] != '/')
        validator->Refuse("build_source.path", "must be an absolute path on the worker");
      return;
    default:
      validator->Refuse("build_source.kind", "is required; it takes oci, tar");
  }
}

}  // namespace

void Validator::Refuse(std::string_view field, std::string_view message) {
  if (violations_.size() < 20)
    violations_.push_back({std::string(field), std::string(message)});
}

absl::Status Validator::status() const {
  if (violations_.empty()) return absl::OkStatus();
  return ValidationError(violations_);
}

bool HasIdPrefix(std::string_view text) {
  for (const std::string_view prefix : kIdPrefixes) {
    if (text.substr(0, prefix.size()) == prefix) return true;
  }
  return false;
}

void Validator::Name(std::string_view field, std::string_view value) {
  if (value.empty()) return Refuse(field, "is required");
  bool good = value.size() <= kMaxNameBytes && IsLowerAlnum(value.front()) &&
              IsLowerAlnum(value.back());
  for (const char c : value) good = good && (IsLowerAlnum(c) || c == '.' || c == '_' || c == '-');
  if (!good) {
    return Refuse(field, "must be 1 to 128 of a-z, 0-9, '.', '_' and '-', with a letter or digit "
                         "at both ends");
  }
  if (HasIdPrefix(value)) return Refuse(field, "begins like an id; choose another name");
  if (!IdFromUuid("", value).empty())
    Refuse(field, "has the form of a UUID; choose another name");
}

void Validator::Range(std::string_view field, uint64_t value, uint64_t min, uint64_t max) {
  if (value < min || value > max)
    Refuse(field, fmt::format("must be from {} to {}, not {}", min, max, value));
}

void Validator::Text(std::string_view field, std::string_view value, size_t max_characters) {
  if (Characters(value) > max_characters)
    Refuse(field, fmt::format("is longer than {} characters; shorten it", max_characters));
  if (HasNul(value)) Refuse(field, "must not contain NUL");
}

void Validator::Required(std::string_view field, std::string_view value) {
  if (value.empty()) Refuse(field, "is required");
}

namespace {

// What registering and changing an image have in common, beside their fields' own rules.
template <typename Request>
void CheckImageFields(const Request& request, Validator* v) {
  if (!request.pull_secret().empty()) v->Name("pull_secret", request.pull_secret());
}

// A line break would end the header that it travels in, or tell that more than a line was pasted.
bool IsOneLine(std::string_view text) {
  return text.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos;
}

}  // namespace

absl::Status ValidateUpdateImage(const v1::UpdateImageRequest& request) {
  Validator v;
  CheckImageFields(request, &v);
  for (const std::string& path : request.update_mask().paths()) {
    const bool number = path == "default_cpu_millicores" || path == "default_memory_mb" ||
                        path == "default_disk_mb" || path == "lazy_pull";
    const auto* field = request.GetDescriptor()->FindFieldByName(path);
    if (field == nullptr) {
      v.Refuse(path, "can't be changed: register a new name");
    } else if (number && !request.GetReflection()->HasField(request, field)) {
      v.Refuse(path, "must not be null; leave it out");
    }
  }
  return v.status();
}

// None of the messages repeats a secret.
absl::Status ValidateCredential(const v1::CreateRegistryCredentialRequest& request) {
  Validator v;
  v.Name("name", request.name());
  v.Required("host", request.host());
  if (request.has_json_key()) {
    if (request.has_password())
      v.Refuse("json_key", "takes the place of a password; send one of them");
    if (request.has_username() && request.username() != kJsonKeyUser)
      v.Refuse("username", "is _json_key with a json_key; leave it out");
    if (request.json_key().empty() || request.json_key().size() > kMaxSecretBytes ||
        !IsOneLine(request.json_key()) || request.json_key().front() != '{')
      v.Refuse("json_key", "must be a JSON object in one line of at most 32 KiB");
    return v.status();
  }
  v.Required("username", request.username());
  v.Required("password", request.password());
  v.Text("username", request.username(), 256);
  if (request.username().find(':') != std::string::npos || !IsOneLine(request.username()))
    v.Refuse("username", "must hold no colon and no line break: the registry would misread it");
  if (request.password().size() > kMaxSecretBytes || !IsOneLine(request.password()))
    v.Refuse("password", "must be one line of at most 32 KiB");
  return v.status();
}

absl::Status ValidateRegisterImage(const v1::RegisterImageRequest& request) {
  Validator v;
  CheckSource(request.build_source(), &v);
  CheckImageFields(request, &v);
  for (int i = 0; i < request.resource_category_size(); ++i) {
    for (int j = 0; j < i; ++j) {
      if (request.resource_category(i) == request.resource_category(j))
        v.Refuse(fmt::format("resource_category[{}]", i), "occurs twice; send it once");
    }
  }
  return v.status();
}

absl::Status ValidateCreateGroup(const v1::CreateAvailabilityGroupRequest& request) {
  Validator v;
  v.Name("name", request.name());
  v.Text("description", request.description(), 512);
  return v.status();
}

absl::Status ValidatePatchGroup(const v1::PatchAvailabilityGroupRequest& request) {
  Validator v;
  if (request.has_name()) v.Name("name", request.name());
  v.Text("description", request.description(), 512);
  return v.status();
}

absl::Status ValidatePlanGroup(const v1::PlanAvailabilityGroupRequest& request) {
  constexpr int kMaxRefs = 10'000;
  Validator v;
  const auto check = [&](const char* field, const auto& refs) {
    if (refs.size() > kMaxRefs) v.Refuse(field, "has more than 10000 entries; plan in parts");
    for (const std::string& ref : refs) {
      if (ref.empty()) v.Refuse(field, "has an empty entry; name an id or a name");
    }
  };
  check("add_images", request.add_images());
  check("remove_images", request.remove_images());
  check("add_workers", request.add_workers());
  check("remove_workers", request.remove_workers());
  return v.status();
}

// RFC 1035 with the letters and digits of RFC 1123; "*." may stand before, nowhere else.
static bool IsAllowlistName(std::string_view name) {
  if (name.substr(0, 2) == "*.") name.remove_prefix(2);
  if (name.size() > 253) return false;
  size_t label = 0, dots = 0;
  bool digits_only = true;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool digit = c >= '0' && c <= '9';
    if (c == '.') {
      if (label == 0 || name[i - 1] == '-') return false;
      label = 0;
      digits_only = true;
      ++dots;
      continue;
    }
    if (!letter && !digit && (c != '-' || label == 0)) return false;
    digits_only = digits_only && digit;
    if (++label > 63) return false;
  }
  // "10.0.0.1" is an address, whatever its labels look like.
  return label > 0 && name.back() != '-' && dots > 0 && !digits_only;
}

static void CheckAllowlist(const v1::BunkerSpec& spec, Validator* v) {
  constexpr int kMaxNames = 256;
  const bool wanted = spec.network_profile() == v1::NETWORK_PROFILE_ALLOWLISTED;
  if (!wanted && spec.network_allowlist_size() > 0)
    v->Refuse("network_allowlist", "goes with network_profile allowlisted alone; leave it out");
  if (wanted && spec.network_allowlist_size() == 0)
    v->Refuse("network_allowlist", "is required with network_profile allowlisted: name hosts");
  if (spec.network_allowlist_size() > kMaxNames)
    v->Refuse("network_allowlist", "has more than 256 entries; use *.x.y for many");
  for (int i = 0; i < std::min(spec.network_allowlist_size(), kMaxNames); ++i) {
    if (IsAllowlistName(spec.network_allowlist(i))) continue;
    v->Refuse(fmt::format("network_allowlist[{}]", i),
              "takes a host name such as example.com or *.example.com: no scheme, port, path, "
              "address or other wildcard");
  }
}

static void CheckArgs(const std::string& path,
                      const google::protobuf::RepeatedPtrField<std::string>& args, Validator* v) {
  size_t bytes = 0;
  for (int i = 0; i < args.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", path, i);
    if (HasNul(args[i])) v->Refuse(at, "must not contain NUL");
    if (args[i].size() > kMaxArgBytes - 1)
      v->Refuse(at, "is longer than 128 KiB, which no process takes");
    bytes += args[i].size() + 1;
  }
  if (bytes > kMaxMainArgsBytes) v->Refuse(path, "takes more than 64 KiB in all; use a file");
}

absl::Status ValidateBunkerSpec(const v1::BunkerSpec& spec) {
  Validator v;
  if (spec.snapshot().empty()) v.Required("image", spec.image());
  if (!spec.snapshot().empty() && !spec.image().empty())
    v.Refuse("snapshot", "stands in place of image; send one of them");
  CheckAllowlist(spec, &v);
  if (spec.has_bandwidth_mbit() && spec.network_profile() != v1::NETWORK_PROFILE_REGISTRY &&
      spec.network_profile() != v1::NETWORK_PROFILE_ALLOWLISTED &&
      spec.network_profile() != v1::NETWORK_PROFILE_UNRESTRICTED &&
      spec.network_profile() != v1::NETWORK_PROFILE_TRANSIT)
    v.Refuse("bandwidth_mbit", "limits a network, and this network_profile has none; leave it out");
  ValidateInterfaces(spec, &v);
  CheckLabels("label_set", spec.label_set(), &v);
  CheckLabels("worker_labels", spec.worker_labels(), &v);
  CheckEnv("env_vars", spec.env_vars(), &v);
  CheckArgs("main.args", spec.main().args(), &v);
  CheckEnv("main.env", spec.main().env(), &v);
  if (spec.has_gpu_type()) CheckGpuType(spec, &v);
  if (spec.has_replicas() && spec.name().size() > kMaxNameBytes - 4)
    v.Refuse("name", "is too long to number its copies; send at most 124 characters");
  return v.status();
}

absl::Status ValidateUpdateBunker(const v1::UpdateBunkerRequest& request, bool renames) {
  Validator v;
  if (renames) v.Name("name", request.name());
  CheckLabels("label_set", request.label_set(), &v);
  return v.status();
}

absl::Status ValidateWorkerLabels(const StringMap& labels) {
  Validator v;
  CheckLabels("labels", labels, &v);
  return v.status();
}

absl::Status ValidateWorkerToken(const v1::CreateWorkerTokenRequest& request) {
  Validator v;
  if (request.name().empty()) {
    v.Refuse("name", "is required: the name of the worker that is to join");
  } else if (!IsWorkerName(request.name()) || HasIdPrefix(request.name())) {
    v.Refuse("name",
             "takes 1 to 128 letters, digits, dots, dashes or underscores, beginning with "
             "a letter or digit, and not as an id does");
  }
  CheckLabels("labels", request.labels(), &v);
  if (request.has_ttl_s()) v.Range("ttl_s", request.ttl_s(), 1, 600);
  if (request.shared() && request.scope() != v1::SCOPE_PLATFORM)
    v.Refuse("shared", "is for scope platform: only its workers are shared by tenants");
  return v.status();
}

absl::Status ValidateDrain(const v1::DrainWorkerRequest& request) {
  Validator v;
  if (request.then() == v1::DRAIN_THEN_STOP && !request.has_deadline_s())
    v.Refuse("then", "stop needs a deadline_s; 0 stops at once");
  return v.status();
}

absl::Status ValidateExec(const v1::ExecRequest& request) {
  Validator v;
  const v1::Command& command = request.command();
  size_t bytes = 0;
  for (int i = 0; i < command.argv_size(); ++i) {
    const std::string path = fmt::format("command[{}]", i);
    if (HasNul(command.argv(i))) v.Refuse(path, "must not contain NUL");
    if (command.argv(i).size() > kMaxArgBytes - 1)
      v.Refuse(path, "is longer than 128 KiB, which no process takes; send it as stdin");
    bytes += command.argv(i).size() + 1;
  }
  if (!command.shell().empty() && command.argv_size() > 0)
    v.Refuse("command", "is both a line and a list; send one of them");
  if (command.shell().empty() && (command.argv_size() == 0 || command.argv(0).empty()))
    v.Refuse("command", "is required: a string for the shell, or a list of program and arguments");
  if (HasNul(command.shell())) v.Refuse("command", "must not contain NUL");
  if (command.shell().size() > kMaxArgBytes - 1 || bytes > kMaxArgvBytes)
    v.Refuse("command", "is too long for a process; send the rest as stdin");
  v.Text("cwd", request.cwd(), 4000);
  if (!request.cwd().empty() && request.cwd()[0] != '/')
    v.Refuse("cwd", "must be an absolute path in the bunker");
  v.Text("user", request.user(), 256);
  CheckEnv("env", request.env(), &v);
  if (request.has_timeout_s()) v.Range("timeout_s", request.timeout_s(), 1, kMaxExecSeconds);
  return v.status();
}

}  // namespace bunker::controller

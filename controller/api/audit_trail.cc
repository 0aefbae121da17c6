#include "controller/api/audit_trail.h"

#include <utility>
#include <vector>

#include "bunker/v1/account.pb.h"
#include "common/base/utf8.h"
#include "controller/api/errors.h"
#include "controller/engine/accounts.h"
#include "controller/engine/audit_log.h"
#include "google/api/annotations.pb.h"

namespace bunker::controller {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr std::string_view kPackage = "bunker.v1.";
constexpr size_t kMaxTargetBytes = 256;
constexpr size_t kMaxDetailBytes = 512;
constexpr size_t kMaxTenants = 100'000;  // that refusals are counted of

std::string Shortened(std::string text, size_t max_bytes) {
  if (text.size() > max_bytes) text.resize(max_bytes);
  return ToValidUtf8(std::move(text));
}

// The value of a text field, or "".
std::string TextOf(const Message& message, const std::string& name) {
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  const bool is_text = field != nullptr && !field->is_repeated() &&
                       field->cpp_type() == FieldDescriptor::CPPTYPE_STRING;
  return is_text ? message.GetReflection()->GetString(message, field) : "";
}

// The fields that the route's path holds: "/groups/{group}/members/{user}" → group, user.
std::vector<std::string> PathFields(std::string_view method) {
  std::vector<std::string> names;
  const auto* descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(std::string(method));
  if (descriptor == nullptr) return names;
  const google::api::HttpRule& rule = descriptor->options().GetExtension(google::api::http);
  const std::string path = rule.get() + rule.put() + rule.post() + rule.delete_() + rule.patch();
  for (size_t at = 0; (at = path.find('{', at)) != std::string::npos;) {
    const size_t end = path.find('}', at);
    if (end == std::string::npos) break;
    names.push_back(path.substr(at + 1, end - at - 1));
    at = end;
  }
  return names;
}

// The row that an answer is about: itself, or the first one of a list.
const Message& MainRow(const Message& answer) {
  if (answer.GetDescriptor()->FindFieldByName("id") != nullptr) return answer;
  for (int i = 0; i < answer.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = answer.GetDescriptor()->field(i);
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
    const bool is_row = field->message_type()->FindFieldByName("id") != nullptr;
    if (field->is_repeated()) {
      if (answer.GetReflection()->FieldSize(answer, field) > 0)
        return answer.GetReflection()->GetRepeatedMessage(answer, field, 0);
    } else if (is_row && answer.GetReflection()->HasField(answer, field)) {
      return answer.GetReflection()->GetMessage(answer, field);
    }
  }
  return answer;
}

}  // namespace

void AuditTrail::Append(Engine& engine, Turn& turn, AuditEntry entry) {
  const auto counted = suppressed_.find(entry.tenant_id);
  if (entry.outcome != "ok" && !refusals_.Take(entry.tenant_id, turn.now()).ok()) {
    if (counted != suppressed_.end()) {
      ++counted->second;
    } else if (suppressed_.size() < kMaxTenants) {
      suppressed_[entry.tenant_id] = 1;
    }
    return;
  }
  if (counted != suppressed_.end()) {
    entry.suppressed = counted->second;
    suppressed_.erase(counted);
  }
  engine.audit().Append(turn, std::move(entry));
}

CallAudit::CallAudit(AuditTrail& trail, const MethodRule& rule, const Caller& caller,
                     const std::string& request_id, const Message& request)
    : trail_(trail) {
  entry_.actor = caller.user_id.empty() ? "operator" : caller.user_id;
  entry_.actor_tenant_id = caller.tenant_id;
  entry_.key_id = caller.key_id;
  entry_.tenant_id = caller.tenant_id;
  entry_.partner_id = caller.partner_id;
  entry_.action = std::string(rule.method).substr(kPackage.size());
  entry_.request_id = request_id;
  const std::vector<std::string> fields = PathFields(rule.method);
  if (!fields.empty()) entry_.target = Shortened(TextOf(request, fields[0]), kMaxTargetBytes);
  for (size_t i = 1; i < fields.size(); ++i)
    AddDetail(fields[i] + "=" + Shortened(TextOf(request, fields[i]), kMaxTargetBytes));
  for (const char* name : {"ref", "user_id", "role", "status"}) {
    const FieldDescriptor* field = request.GetDescriptor()->FindFieldByName(name);
    if (field == nullptr || field->is_repeated()) continue;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      const std::string value = TextOf(request, name);
      if (!value.empty()) AddDetail(std::string(name) + "=" + Shortened(value, kMaxTargetBytes));
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM &&
               request.GetReflection()->HasField(request, field)) {
      AddDetail(std::string(name) + "=" + request.GetReflection()->GetEnum(request, field)->name());
    }
  }
  // A call that has no path of its own.
  if (entry_.target.empty()) entry_.target = Shortened(TextOf(request, "bunker"), kMaxTargetBytes);
  // What a create would have been called, where it is refused.
  if (entry_.target.empty()) entry_.target = Shortened(TextOf(request, "name"), kMaxTargetBytes);
}

void CallAudit::AddDetail(std::string_view text) {
  if (!entry_.detail.empty()) entry_.detail += ' ';
  entry_.detail = Shortened(entry_.detail.append(text), kMaxDetailBytes);
}

void CallAudit::Done(Engine& engine, Turn& turn, const Message* answer) {
  if (answer != nullptr) {
    const Message& row = MainRow(*answer);
    const std::string id = TextOf(row, "id");
    if (!id.empty()) {
      // Who called it by its name finds that name beside the id.
      if (!entry_.target.empty() && entry_.target != id) AddDetail("as=" + entry_.target);
      entry_.target = id;
    }
    const bool is_tenant = row.GetDescriptor() == v1::Tenant::descriptor();
    const std::string tenant = is_tenant ? id : TextOf(row, "tenant_id");
    if (!tenant.empty() && tenant != entry_.tenant_id) {
      entry_.tenant_id = tenant;
      const auto found = engine.accounts().FindTenant(OperatorCaller(), tenant);
      entry_.partner_id = found.ok() ? (*found)->partner_id : TextOf(row, "partner_id");
    }
  }
  Write(engine, turn, "ok");
}

void CallAudit::Started(Engine& engine, Turn& turn, const Bunker& bunker) {
  entry_.target = bunker.id;
  entry_.tenant_id = bunker.tenant_id;
  entry_.partner_id = bunker.partner_id;
  Write(engine, turn, "ok");
}

void CallAudit::Refused(Engine& engine, Turn& turn, const absl::Status& why) {
  Write(engine, turn, ViewOf(why).row->reason);
}

void CallAudit::Write(Engine& engine, Turn& turn, std::string outcome) {
  if (std::exchange(written_, true)) return;
  entry_.outcome = std::move(outcome);
  trail_.Append(engine, turn, entry_);
}

}  // namespace bunker::controller

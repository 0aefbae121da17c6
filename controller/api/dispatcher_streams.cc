// Calls that go on after their turn: admitted here, fed by others.
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "controller/api/dispatcher.h"
#include "controller/api/errors.h"
#include "controller/api/field_rules.h"
#include "controller/api/not_built.h"

namespace bunker::controller {

void Dispatcher::AddStream(const google::protobuf::Descriptor* request, StreamHandler handler) {
  BUNKER_CHECK(adding_ != nullptr);
  adding_->request = request;
  adding_->stream = std::move(handler);
  adding_ = nullptr;
}

void Dispatcher::Admit(std::string_view method, CallInfo info,
                       absl::AnyInvocable<void(CallContext&)> run,
                       absl::AnyInvocable<void(absl::Status)> refused) {
  const MethodRule* rule = FindRule(method);
  BUNKER_CHECK(rule != nullptr);
  core_.Post([this, rule, info = std::move(info), run = std::move(run),
              refused = std::move(refused)](Engine& engine, Turn& turn) mutable {
    std::string sha256;
    absl::StatusOr<Caller> caller = Identify(*rule, info, nullptr, engine, turn, &sha256);
    if (!caller.ok()) {
      CountRefusal(caller.status(), *refusals_);
      turn.AfterCommit([refused = std::move(refused), status = caller.status()](
                           const absl::Status&) mutable { refused(status); });
      return;
    }
    CallContext context{core_, engine, turn, *std::move(caller), std::move(info), *rule, nullptr};
    context.admission = admissions_.Add(*rule, sha256, context.caller, engine);
    run(context);
  });
}

void Dispatcher::OpenStream(const google::protobuf::MethodDescriptor* method,
                            std::shared_ptr<const Message> request, CallInfo info,
                            std::string_view body_field, Sink sink) {
  const auto it = entries_.find(std::string_view(method->full_name()));
  BUNKER_CHECK(it != entries_.end() && it->second.stream != nullptr);
  BUNKER_CHECK(it->second.request == request->GetDescriptor());
  std::vector<FieldViolation> violations;
  FindNotBuilt(*request, body_field, &violations);
  FindRuleViolations(*request, body_field, &violations);
  core_.Post([this, entry = &it->second, request, info = std::move(info), sink = std::move(sink),
              violations = std::move(violations)](Engine& engine, Turn& turn) {
    const MethodRule& rule = *entry->rule;
    std::string sha256;
    absl::StatusOr<Caller> caller = Identify(rule, info, request.get(), engine, turn, &sha256);
    absl::Status refused = caller.status();
    std::shared_ptr<CallAudit> audit;
    if (caller.ok() && rule.audited())
      audit = std::make_shared<CallAudit>(trail_, rule, *caller, info.request_id, *request);
    if (refused.ok() && !violations.empty()) refused = ValidationError(violations);
    if (refused.ok() && !info.idempotency_key.empty()) {
      refused = ValidationError("Idempotency-Key",
                                "is not for streams, which can't be given again; leave it out");
    }
    if (!refused.ok()) {
      CountRefusal(refused, *refusals_);
      if (audit) audit->Refused(engine, turn, refused);
      turn.AfterCommit([sink, refused](const absl::Status&) { sink->End(refused); });
      return;
    }
    CallContext context{core_, engine, turn, *std::move(caller), info, rule, nullptr};
    context.audit = std::move(audit);
    context.admission = admissions_.Add(rule, sha256, context.caller, engine);
    entry->stream(context, *request, sink);
  });
}

}  // namespace bunker::controller

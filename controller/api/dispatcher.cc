#include "controller/api/dispatcher.h"

#include <fmt/format.h>

#include "common/base/converters.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/api/errors.h"
#include "controller/api/field_rules.h"
#include "controller/api/not_built.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxIdempotencyKeyBytes = 255;

std::string DeterministicBytes(const google::protobuf::Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

absl::Status CheckIdempotencyKey(const MethodRule& rule, const std::string& key) {
  if (key.empty()) return absl::OkStatus();
  if (key.size() > kMaxIdempotencyKeyBytes)
    return ValidationError("Idempotency-Key", "is longer than 255 bytes; send a shorter one");
  const std::string_view method = rule.method;
  if (!rule.mutation && method.substr(method.rfind('.') + 1) == "Exec") {
    return ValidationError("Idempotency-Key",
                           "is not available yet for exec; leave it out (a command may run twice)");
  }
  return absl::OkStatus();
}

// Its HTTP status.
int CountRefusal(const absl::Status& status, RefusalStats& stats) {
  const ErrorView view = ViewOf(status);
  const std::string_view code = view.row->reason;
  stats.errors.With({view.row->reason}).Add();
  if (code == "BUNKER_QUOTA_EXCEEDED") stats.quota.Add();
  if (code == "RATE_LIMITED") stats.rate_limited.Add();
  if (view.placement) {
    for (const auto& [predicate, count] : view.placement->counts())
      stats.placements.With({predicate}).Add(count);
  }
  return view.row->http_status;
}

}  // namespace

struct Dispatcher::Running {
  const Entry* entry = nullptr;
  std::shared_ptr<const Message> request;
  CallInfo info;
  Done done;
  std::shared_ptr<RefusalStats> refusals;

  // Once.
  void Finish(Answer answer) {
    if (!done) return;
    if (!answer.ok() && CountRefusal(answer.status(), *refusals) == 500) {
      Log(Severity::kError, "api.internal_error",
          {{"request_id", info.request_id}, {"method", entry->rule->method},
           {"error", answer.status().ToString()}});
    }
    std::exchange(done, nullptr)(std::move(answer));
  }
};

Dispatcher::Dispatcher(Core& core, Options options)
    : core_(core), limiter_(options.rate_per_second, options.rate_burst) {}

Dispatcher& Dispatcher::For(std::string_view method) {
  const MethodRule* rule = FindRule(method);
  BUNKER_CHECK(rule != nullptr);
  Entry& entry = entries_[std::string(method)];
  BUNKER_CHECK(entry.rule == nullptr);
  entry.rule = rule;
  adding_ = &entry;
  return *this;
}

void Dispatcher::Add(const google::protobuf::Descriptor* request,
                     const google::protobuf::Descriptor* response, Handler handler) {
  BUNKER_CHECK(adding_ != nullptr);
  adding_->request = request;
  adding_->response = response;
  adding_->handler = std::move(handler);
  adding_ = nullptr;
}

absl::Status Dispatcher::CheckComplete() const {
  for (const MethodRule& rule : MethodRules()) {
    if (entries_.find(rule.method) == entries_.end())
      return absl::InternalError(fmt::format("{} has no handler", rule.method));
  }
  return absl::OkStatus();
}

void Dispatcher::Gate(CallContext& context, Answer answer, FinishFn finish) {
  context.turn.AfterCommit(
      [answer = std::move(answer), finish = std::move(finish)](const absl::Status& committed) {
        finish(committed.ok() ? answer : Answer(committed));
      });
}

void Dispatcher::Invoke(const google::protobuf::MethodDescriptor* method,
                        std::shared_ptr<const Message> request, CallInfo info,
                        std::string_view body_field, Done done) {
  const auto it = entries_.find(std::string_view(method->full_name()));
  BUNKER_CHECK(it != entries_.end());
  BUNKER_CHECK(it->second.request == method->input_type());
  auto call = std::make_shared<Running>();
  call->entry = &it->second;
  call->request = std::move(request);
  call->info = std::move(info);
  call->done = std::move(done);
  call->refusals = refusals_;
  std::vector<FieldViolation> violations;
  FindNotBuilt(*call->request, body_field, &violations);
  FindRuleViolations(*call->request, body_field, &violations);
  core_.Post([this, call, violations = std::move(violations)](Engine& engine, Turn& turn) {
    const absl::StatusOr<Caller> caller =
        Identify(*call->entry->rule, call->info, engine, turn);
    absl::Status status = caller.status();
    if (status.ok() && !violations.empty()) status = ValidationError(violations);
    if (status.ok()) status = CheckIdempotencyKey(*call->entry->rule, call->info.idempotency_key);
    if (status.ok()) return Run(call, *caller, engine, turn);
    turn.AfterCommit([call, status](const absl::Status&) { call->Finish(status); });
  });
}

absl::StatusOr<Caller> Dispatcher::Identify(const MethodRule& rule, const CallInfo& info,
                                            Engine& engine, Turn& turn) {
  if (info.trusted) {
    Caller caller = OperatorCaller();
    caller.permissions = PermissionsOf(Role::kSuperAdmin);
    return caller;
  }
  if (rule.need == Need::kPublic) return Caller();
  ASSIGN_OR_RETURN(const std::string hash, KeyHashOf(info.authorization));
  ASSIGN_OR_RETURN(const AuthResult auth, engine.Authenticate(turn, hash));
  RETURN_IF_ERROR(limiter_.Take(auth.key->id, turn.now()));
  Caller caller = CallerOf(auth);
  RETURN_IF_ERROR(CheckRule(rule, caller));
  return caller;
}

absl::StatusOr<std::shared_ptr<const Dispatcher::Message>> Dispatcher::FindRepeat(
    const Running& call, const Caller& caller, const std::string& hash, Engine& engine,
    Turn& turn) {
  ASSIGN_OR_RETURN(const RowPtr<IdempotencyRecord> record,
                   engine.FindIdempotent(turn, caller.tenant_id, call.info.idempotency_key, hash));
  if (record == nullptr) return nullptr;
  std::shared_ptr<Message> stored(google::protobuf::MessageFactory::generated_factory()
                                      ->GetPrototype(call.entry->response)->New());
  if (!stored->ParseFromString(record->body))
    return absl::InternalError("a stored answer can't be read");
  return std::static_pointer_cast<const Message>(stored);
}

// Idempotency around the handler: a stored answer is given again; a new one is stored in the same
// turn as the effect, or neither happens.
void Dispatcher::Run(std::shared_ptr<Running> call, Caller caller, Engine& engine, Turn& turn) {
  CallContext context{core_, engine, turn, std::move(caller), call->info, nullptr};
  FinishFn finish = [call](Answer answer) { call->Finish(std::move(answer)); };
  if (call->info.idempotency_key.empty() || !call->entry->rule->mutation)
    return call->entry->handler(context, *call->request, std::move(finish));

  const std::string tenant_id = context.caller.tenant_id;
  const std::string hash =
      Sha256Hex(std::string(call->entry->rule->method) + "\n" + DeterministicBytes(*call->request));
  const auto repeat = FindRepeat(*call, context.caller, hash, engine, turn);
  if (!repeat.ok()) return Gate(context, repeat.status(), std::move(finish));
  if (*repeat != nullptr) return Gate(context, *repeat, std::move(finish));

  const size_t savepoint = turn.Savepoint();
  auto stored = std::make_shared<absl::Status>();
  context.remember = [&](const Message& answer) {
    IdempotencyRecord record;
    record.tenant_id = tenant_id;
    record.key = call->info.idempotency_key;
    record.request_hash = hash;
    record.status = 200;
    record.body = answer.SerializeAsString();
    record.created_at = turn.now();
    *stored = engine.StoreIdempotent(turn, std::move(record));
  };
  call->entry->handler(context, *call->request, [call, stored](Answer answer) {
    call->Finish(stored->ok() ? std::move(answer) : Answer(*stored));
  });
  if (stored->ok()) return;
  // The effect without its record would run again at the next repeat: neither.
  turn.RollbackTo(savepoint);
  turn.AfterCommit([call, stored](const absl::Status&) { call->Finish(*stored); });
}

void Dispatcher::Admit(std::string_view method, CallInfo info,
                       absl::AnyInvocable<void(CallContext&)> run,
                       absl::AnyInvocable<void(absl::Status)> refused) {
  const MethodRule* rule = FindRule(method);
  BUNKER_CHECK(rule != nullptr);
  core_.Post([this, rule, info = std::move(info), run = std::move(run),
              refused = std::move(refused)](Engine& engine, Turn& turn) mutable {
    absl::StatusOr<Caller> caller = Identify(*rule, info, engine, turn);
    if (!caller.ok()) {
      CountRefusal(caller.status(), *refusals_);
      turn.AfterCommit([refused = std::move(refused), status = caller.status()](
                           const absl::Status&) mutable { refused(status); });
      return;
    }
    CallContext context{core_, engine, turn, *std::move(caller), std::move(info), nullptr};
    run(context);
  });
}

absl::Status Dispatcher::StillAdmitted(const CallInfo& info, Engine& engine, Turn& turn) {
  if (info.trusted) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string hash, KeyHashOf(info.authorization));
  return engine.Authenticate(turn, hash).status();
}

}  // namespace bunker::controller

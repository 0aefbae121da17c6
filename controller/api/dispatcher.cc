#include "controller/api/dispatcher.h"

#include <fmt/format.h>

#include "common/base/converters.h"
#include "common/base/hex.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/seal/aead.h"
#include "controller/api/errors.h"
#include "controller/api/field_rules.h"
#include "controller/api/not_built.h"
#include "controller/api/sealed_answer.h"
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

absl::Status CheckIdempotencyKey(const MethodRule& rule, const CallInfo& info) {
  const std::string& key = info.idempotency_key;
  if (key.empty()) return absl::OkStatus();
  if (rule.extra == Extra::kSecretAnswer && info.trusted) {
    return ValidationError("Idempotency-Key",
                           "can't be kept for the operator, whose answers hold a secret that "
                           "nothing could seal; leave it out");
  }
  if (key.size() > kMaxIdempotencyKeyBytes)
    return ValidationError("Idempotency-Key", "is longer than 255 bytes; send a shorter one");
  if (!rule.mutation && rule.extra == Extra::kStart) {
    const bool files = std::string_view(rule.method).find(".Files.") != std::string_view::npos;
    return ValidationError("Idempotency-Key",
                           files ? "is not available for files; leave it out"
                                 : "is not available yet for commands; leave it out (a command may "
                                   "run twice)");
  }
  return absl::OkStatus();
}

}  // namespace

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

struct Dispatcher::Running {
  const Entry* entry = nullptr;
  std::shared_ptr<const Message> request;
  CallInfo info;
  Done done;
  std::vector<FieldViolation> violations;
  std::string key_sha256;  // "" = the operator's, or nobody's
  std::shared_ptr<Admission> admission;  // while the call waits for something
  std::shared_ptr<RefusalStats> refusals;

  // Once.
  void Finish(Answer answer) {
    if (!done) return;
    admission = nullptr;
    if (!answer.ok() && CountRefusal(answer.status(), *refusals) == 500) {
      Log(Severity::kError, "api.internal_error",
          {{"request_id", info.request_id}, {"method", entry->rule->method},
           {"error", answer.status().ToString()}});
    }
    std::exchange(done, nullptr)(std::move(answer));
  }
};

Dispatcher::Dispatcher(Core& core, Options options)
    : core_(core),
      request_hash_key_(std::move(options.request_hash_key)),
      limiter_(options.rate_per_second, options.rate_burst),
      admissions_(core) {}

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

bool Dispatcher::Unchecked(CallContext& context, size_t savepoint) {
  if (!context.rule.scoped() || context.scope_checked) return false;
  context.turn.RollbackTo(savepoint);
  return true;
}

absl::Status CheckScope(CallContext& context, Scope scope, std::string_view noun) {
  context.scope_checked = true;
  return CheckScopeKey(context.rule, context.caller, scope, noun);
}

absl::Status CheckMayChange(CallContext& context, const Ownership& owner, std::string_view noun) {
  return CheckScope(context, owner.scope, noun);
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
  FindNotBuilt(*call->request, body_field, &call->violations);
  FindRuleViolations(*call->request, body_field, &call->violations);
  core_.Post([this, call](Engine& engine, Turn& turn) {
    const absl::StatusOr<Caller> caller = Identify(*call->entry->rule, call->info,
                                                   call->request.get(), engine, turn,
                                                   &call->key_sha256);
    if (caller.ok()) return Run(call, *caller, engine, turn);
    turn.AfterCommit([call, status = caller.status()](const absl::Status&) {
      call->Finish(status);
    });
  });
}

absl::StatusOr<Caller> Dispatcher::Identify(const MethodRule& rule, const CallInfo& info,
                                            const Message* request, Engine& engine, Turn& turn,
                                            std::string* sha256) {
  if (info.trusted) {
    Caller caller = OperatorCaller();
    caller.permissions = PermissionsOf(Role::kSuperAdmin);
    return caller;
  }
  if (rule.need == Need::kPublic) return Caller();
  *sha256 = info.key_sha256;
  if (sha256->empty()) {
    ASSIGN_OR_RETURN(*sha256, KeyHashOf(info.authorization));
  }
  ASSIGN_OR_RETURN(const AuthResult auth, engine.Authenticate(turn, *sha256));
  RETURN_IF_ERROR(limiter_.Take(auth.key->id, turn.now(), auth.key->rate_limit_per_s));
  Caller caller = CallerOf(auth);
  const absl::Status allowed = CheckRule(rule, caller);
  if (allowed.ok()) return caller;
  if (request != nullptr)
    CallAudit(trail_, rule, caller, info.request_id, *request).Refused(engine, turn, allowed);
  return allowed;
}

absl::Status Dispatcher::CheckRequest(const Running& call, const Caller& caller,
                                      CallAudit* audit) {
  std::vector<std::string> notes;
  // What is noted is noted of a refusal, too.
  const absl::Status values = CheckValues(*call.entry->rule, caller, *call.request, &notes);
  for (const std::string& note : notes) {
    if (audit != nullptr) audit->AddDetail(note);
  }
  RETURN_IF_ERROR(values);
  if (!call.violations.empty()) return ValidationError(call.violations);
  return CheckIdempotencyKey(*call.entry->rule, call.info);
}

absl::StatusOr<std::shared_ptr<const Dispatcher::Message>> Dispatcher::FindRepeat(
    const Running& call, const Caller& caller, const std::string& hash, Engine& engine,
    Turn& turn) {
  ASSIGN_OR_RETURN(const RowPtr<IdempotencyRecord> record,
                   engine.FindIdempotent(turn, caller.tenant_id, call.info.idempotency_key, hash));
  if (record == nullptr) return nullptr;
  std::shared_ptr<Message> stored(google::protobuf::MessageFactory::generated_factory()
                                      ->GetPrototype(call.entry->response)->New());
  std::string body = record->body;
  if (call.entry->rule->extra == Extra::kSecretAnswer) {
    ASSIGN_OR_RETURN(const std::string_view key, KeyOf(call.info.authorization));
    absl::StatusOr<std::string> opened = OpenAnswer(key, record->id(), body);
    if (!opened.ok()) {
      return ApiError("IDEMPOTENCY_CONFLICT",
                      "the first answer holds a secret, for the key alone that asked for it; "
                      "repeat with that key, or use another Idempotency-Key");
    }
    body = *std::move(opened);
  }
  if (!stored->ParseFromString(body)) return absl::InternalError("a stored answer can't be read");
  return std::static_pointer_cast<const Message>(stored);
}

void Dispatcher::FinishAudited(const std::shared_ptr<Running>& call,
                               const std::shared_ptr<CallAudit>& audit, Answer answer) {
  if (audit->written()) return call->Finish(std::move(answer));
  core_.Post([call, audit, answer = std::move(answer)](Engine& engine, Turn& turn) mutable {
    if (answer.ok()) {
      audit->Done(engine, turn, answer->get());
    } else {
      audit->Refused(engine, turn, answer.status());
    }
    turn.AfterCommit([call, answer = std::move(answer)](const absl::Status& committed) {
      call->Finish(committed.ok() ? answer : Answer(committed));
    });
  });
}

// What a handler waits for is not waited for when its caller is no longer let in.
void Dispatcher::EndWhenLost(const std::shared_ptr<Running>& call, const Caller& caller,
                             Engine& engine) {
  const bool waits = call->done && call->info.cancel != nullptr && *call->info.cancel;
  if (!waits || call->key_sha256.empty()) return;
  call->admission = admissions_.Add(*call->entry->rule, call->key_sha256, caller, engine);
  call->admission->OnLost([weak = std::weak_ptr<Running>(call)](const absl::Status& why) {
    const std::shared_ptr<Running> lost = weak.lock();
    if (lost == nullptr) return;
    const std::function<void()> cancel = *lost->info.cancel;
    lost->Finish(why);
    if (cancel) cancel();
  });
}

// Around the handler: the audit row, and idempotency. A stored answer is given again; a new one is
// stored in the same turn as the effect, or neither happens.
void Dispatcher::Run(std::shared_ptr<Running> call, Caller caller, Engine& engine, Turn& turn) {
  const MethodRule& rule = *call->entry->rule;
  CallContext context{core_, engine, turn, std::move(caller), call->info, rule, nullptr};
  FinishFn finish = [call](Answer answer) { call->Finish(std::move(answer)); };
  if (rule.audited()) {
    context.audit = std::make_shared<CallAudit>(trail_, rule, context.caller,
                                                call->info.request_id, *call->request);
    finish = [this, call, audit = context.audit](Answer answer) {
      FinishAudited(call, audit, std::move(answer));
    };
  }
  if (const absl::Status status = CheckRequest(*call, context.caller, context.audit.get());
      !status.ok()) {
    if (context.audit) context.audit->Refused(engine, turn, status);
    return Gate(context, status, std::move(finish));
  }
  const bool remembered = rule.mutation && !call->info.idempotency_key.empty();
  std::string hash;
  if (remembered) {
    hash = HexEncode(HmacSha256(
        request_hash_key_, std::string(rule.method) + "\n" + DeterministicBytes(*call->request)));
    const auto repeat = FindRepeat(*call, context.caller, hash, engine, turn);
    const bool is_repeat = repeat.ok() && *repeat != nullptr;
    if (is_repeat || !repeat.ok()) {
      // Nothing is done again, so there is no row but the first one's.
      turn.AfterCommit([call, repeat](const absl::Status& committed) {
        call->Finish(!committed.ok() ? Answer(committed) : Answer(repeat));
      });
      return;
    }
  }
  const size_t savepoint = turn.Savepoint();
  auto stored = std::make_shared<absl::Status>();
  if (rule.mutation) {
    context.remember = [&, tenant_id = context.caller.tenant_id](const Message& answer) {
      context.audit->Done(engine, turn, &answer);
      if (remembered) *stored = Remember(*call, tenant_id, hash, answer, engine, turn);
    };
  }
  call->entry->handler(context, *call->request, [finish, stored](Answer answer) {
    finish(stored->ok() ? std::move(answer) : Answer(*stored));
  });
  if (!stored->ok()) {
    // The effect without its record would run again at the next repeat: neither.
    turn.RollbackTo(savepoint);
    turn.AfterCommit([call, stored](const absl::Status&) { call->Finish(*stored); });
    return;
  }
  // One that wrote and told nobody what: its row is in the same commit all the same.
  if (rule.mutation && turn.Savepoint() > savepoint && !context.audit->written())
    context.audit->Done(engine, turn, nullptr);
  EndWhenLost(call, context.caller, engine);
}

absl::Status Dispatcher::Remember(const Running& call, const std::string& tenant_id,
                                  const std::string& hash, const Message& answer, Engine& engine,
                                  Turn& turn) {
  IdempotencyRecord record;
  record.tenant_id = tenant_id;
  record.key = call.info.idempotency_key;
  record.request_hash = hash;
  record.status = 200;
  record.body = answer.SerializeAsString();
  if (call.entry->rule->extra == Extra::kSecretAnswer) {
    ASSIGN_OR_RETURN(const std::string_view key, KeyOf(call.info.authorization));
    record.body = SealAnswer(key, record.id(), record.body);
  }
  record.created_at = turn.now();
  return engine.StoreIdempotent(turn, std::move(record));
}

}  // namespace bunker::controller
